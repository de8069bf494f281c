"""Symbols that a tokenizer lacks: written with two others, read back exactly, counted and paid for."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitlaw import InputError
from bitlaw.compression import accounting, codec, scoring
from bitlaw.data import escapes, seven_bit, tokens, vocabularies

LACKING = "\x00\x04\x13\x1fQz\x7f"
BYTES = bytes(range(256))


@pytest.fixture(scope="module")
def lacking(tokenizer, tmp_path_factory):
    """(tokenizer, spelling, sha256) of a byte-level tokenizer without LACKING."""
    description = json.loads(tokenizer.to_str())
    model, spelt = description["model"], {b: c for c, b in vocabularies.byte_symbols().items()}
    gone = {spelt[ord(symbol)] for symbol in LACKING}
    kept = [token for token in model["vocab"] if not gone & set(token)]
    merges = [pair for pair in model["merges"] if not gone & set("".join(pair))]
    model |= {"vocab": {token: number for number, token in enumerate(kept)}, "merges": merges}
    path = tmp_path_factory.mktemp("lacking") / "tokenizer.json"
    path.write_text(json.dumps(description))
    return tokens.open_tokenizer(path)


def test_the_rule_of_the_format(lacking):
    """Written out here by hand from docs/format.md: changing it makes old streams unreadable."""
    assert escapes.table(lacking[1]) == {
        "\x1e": "\x1e\x1e",
        "\x00": "\x1e0",
        "\x04": "\x1e1",
        "\x13": "\x1e2",
        "\x1f": "\x1e3",
        "Q": "\x1e4",
        "z": "\x1e5",
        "\x7f": "\x1e6",
    }


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300) | st.text(LACKING + "\x1e01 ", max_size=40).map(str.encode))
@example(data=BYTES)
@example(data=b"\x1e")
@example(data=b"\x1e0\x00\x1e\x1e")
def test_any_bytes_come_back_and_every_one_is_counted_once(lacking, data):
    tokenizer, spelling, _ = lacking
    text, table = seven_bit.to_ascii(data), escapes.table(spelling)
    (ids,) = tokens.encode(tokenizer, spelling, [text])
    written = b"".join(spelling[i] for i in ids)
    assert seven_bit.from_ascii(escapes.read(table, written), seven_bit.top_bits(data)) == data
    assert tokens.lengths(spelling, ids).sum() == len(data)
    assert escapes.count(table, written) == sum(symbol in LACKING + "\x1e" for symbol in text)
    assert len(written) == len(data) + escapes.count(table, written)


def test_a_byte_counts_for_the_token_that_ends_it(lacking):
    table = escapes.table(lacking[1])
    written = escapes.write(table, "a\x00\x1eb").encode()
    assert written == b"a\x1e0\x1e\x1eb"
    assert escapes.sizes(table, [b"a\x1e", b"0\x1e", b"\x1e", b"b"]).tolist() == [1, 1, 1, 1]
    assert escapes.sizes(table, [b"a", b"\x1e", b"0", b"\x1e\x1eb"]).tolist() == [1, 0, 1, 2]
    assert escapes.sizes(table, []).tolist() == []


def test_a_vocabulary_with_all_symbols_needs_no_escape(spelling):
    assert escapes.table(spelling) == {}
    text = "\x1f\x1fA\x00"
    assert escapes.write({}, text) == text and escapes.read({}, text.encode()) == text.encode()
    assert escapes.sizes({}, [b"ab", b"c"]).tolist() == [2, 1] and escapes.count({}, b"ab") == 0


def test_without_control_symbols_the_greatest_symbol_is_the_escape():
    table = escapes.table([bytes([b]) for b in range(32, 127)] + [b"\t", b"\n", b"\r", None, b"ab"])
    assert table["~"] == "~~" and table["\x00"] == "~0" and "\n" not in table


def test_too_few_symbols_are_refused():
    with pytest.raises(InputError, match=r"lacks 118 of the 128 ASCII symbols and has 9 to write them with"):
        escapes.table([bytes([b]) for b in b"abcdefghij"])
    with pytest.raises(InputError, match="lacks 128"):
        escapes.table([None])


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60))
def test_damaged_text_is_read_without_an_error(lacking, data):
    escapes.read(escapes.table(lacking[1]), data)


def test_escapes_are_saved_a_chunk(lacking, tmp_path):
    tokenizer, spelling, sha256 = lacking
    ids = tokens.encode(tokenizer, spelling, ["", "plain", "\x00\x1e", "Qz"])
    tokens.write(tmp_path / "tokens.npz", ids, spelling, sha256)
    assert tokens.read_escaped(tmp_path / "tokens.npz").tolist() == [0, 0, 2, 2]
    assert [s.sum() for s in tokens.read(tmp_path / "tokens.npz")[1]] == [0, 5, 2, 2]
    assert tokens.read(tmp_path / "tokens.npz")[1][0].dtype == np.int32


@settings(max_examples=10, deadline=None)
@given(data=st.binary(max_size=100))
@example(data=b"\x00\x04\x13\x1e" * 20)  # more tokens than bytes
@example(data=BYTES)
def test_a_stream_of_escaped_chunks_decodes_and_is_accounted_for(exact, lacking, data):
    tokenizer, spelling, sha256 = lacking
    chunks = [data, b"plain"]
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])
    scores = scoring.score(exact, ids, 1000)
    header = codec.header(exact, "0" * 64, sha256, "exact", 2)
    records = [codec.record(chunk, own[:3]) for chunk, own in zip(chunks, scores, strict=True)]
    assert [decoded for decoded, _ in codec.decode(exact, spelling, header, records)] == chunks
    if data:
        sizes = tokens.lengths(spelling, ids[0])
        row = accounting.position_costs(scores[0], sizes)
        assert sum(row["bytes_by_position"]) + sizes[0] == len(data)
        assert sum(row["tokens_by_position"]) == len(ids[0]) - 1
