"""Cells outside Snakemake, each in a new process: both modes, lower precisions, and checks that fail."""

import pyarrow.parquet as pq
import pytest

from bitlaw.data import tokens
from cell_process import CHUNKS, SIZE, compress


@pytest.mark.parametrize(
    ("model", "precision", "mode"),
    [
        ("neox_folder", "fp32", "invariant"),
        ("neox_folder", "bf16", "lockstep"),
        ("neox_folder", "fp16", "lockstep"),
        ("gpt2_folder", "fp32", "lockstep"),
    ],
)
def test_a_cell_adds_up_and_decodes(data, tmp_path, request, model, precision, mode):
    ran, about = compress(data, request.getfixturevalue(model), tmp_path, precision=precision)
    assert ran.returncode == 0, ran.stderr
    assert about["mode"] == mode and about["precision"] == precision
    assert about["cr_lossless"] == pytest.approx(about["stream_bits"] / (8 * CHUNKS * SIZE), abs=1e-12)
    terms = [value for name, value in about.items() if name.startswith("audit_")]
    assert about["cr_published"] + sum(terms) == pytest.approx(about["cr_lossless"], abs=1e-12)
    check = about["decode_check"]
    assert check["passed"] and check["chunk_numbers"] == [0, 2] and check["threads"] != about["machine"]["threads"]
    assert abs(check["lockstep_bytes"] - check["one_shot_bytes"]) <= (2 if mode == "lockstep" else 0)
    assert check["one_shot_bytes"] > 0
    rows = pq.read_table(tmp_path / "step1.parquet").to_pylist()
    assert [row["bytes"] for row in rows] == [SIZE] * CHUNKS
    assert sum(row["tokens"] for row in rows) == about["tokens"]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            "def empty(*a):\n    return b''\ncodec.restore = empty",
            "decode check failed: the stream decodes to other bytes",
        ),
        (
            "right = codec.restore\ndef less(*a):\n    data = right(*a)\n    a[4].pop()\n    return data\n"
            "codec.restore = less",
            "decode check failed: the decoder met other intervals",
        ),
        ("def die(*a):\n    import os\n    os._exit(9)\ncodec.restore = die", "BrokenProcessPool"),
    ],
)
def test_a_cell_that_does_not_decode_leaves_no_result(data, tmp_path, neox_folder, before, message):
    ran, about = compress(data, neox_folder, tmp_path, before)
    assert ran.returncode != 0 and about is None
    assert message in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_lockstep_size_that_disagrees_is_refused(data, tmp_path, gpt2_folder):
    before = """
right = codec.encode_lockstep
def wrong(*a):
    return [record._replace(coded=record.coded + b"123") for record in right(*a)]
codec.encode_lockstep = wrong"""
    ran, about = compress(data, gpt2_folder, tmp_path, before)
    assert about is None and "the model's two passes differ by more than 0.01 %" in ran.stderr


def test_tokens_of_another_tokenizer_are_refused(data, tmp_path, neox_folder):
    ids, *_ = tokens.read(data / "tokens.npz")
    spelling = [bytes([i % 128]) for i in range(1000)]
    tokens.write(tmp_path / "tokens.npz", [i * 0 + 999 for i in ids], spelling, "0" * 64)
    (tmp_path / "out").mkdir()
    ran, about = compress(data, neox_folder, tmp_path / "out", token_file=tmp_path / "tokens.npz")
    assert about is None and "tokens.npz: token 999, but" in ran.stderr
