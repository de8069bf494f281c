"""Digests of files, of one and of several put together."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitlaw.runtime import hashing


@given(st.lists(st.binary(max_size=40), max_size=4), st.sampled_from(["sha256", "md5"]), st.integers(1, 50))
def test_a_digest_is_that_of_all_bytes_in_order(tmp_path_factory, parts, kind, block):
    folder = tmp_path_factory.mktemp("parts")
    for number, part in enumerate(parts):
        (folder / str(number)).write_bytes(part)
    paths = [folder / str(number) for number in range(len(parts))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "BLOCK", block)
        assert hashing.digest(*paths, kind=kind) == hashlib.new(kind, b"".join(parts)).hexdigest()


def test_known_answer(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert hashing.digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
