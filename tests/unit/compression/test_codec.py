"""The stream: every byte comes back, and what is damaged or foreign raises and decodes to nothing else."""

import time
import zlib
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw import InputError
from bitlaw.compression import codec, range_coder, scoring, top_bits
from bitlaw.data import seven_bit, tokens
from bitlaw.models import checkpoint

WEIGHTS, TOKENIZER = "ab" * 32, "cd" * 32
REFUSED = (codec.CorruptStream, InputError)


@pytest.fixture(scope="module", autouse=True)
def remembered():
    """Properties of a model are found out once, not once a stream."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("invariant", "known_answer"):
            patch.setattr(codec, name, cache(getattr(codec, name)))
        yield


class Pair:
    """A model with its tokenizer, as both ends of a stream have it."""

    def __init__(self, model, folder, mode=None):
        self.model = model
        self.tokenizer, self.spelling, _ = tokens.open_tokenizer(folder / "tokenizer.json")
        self.header = codec.header(model, WEIGHTS, TOKENIZER, "fp32", mode)

    def ids(self, chunks):
        return tokens.encode(self.tokenizer, self.spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])

    def records(self, chunks):
        if self.header.mode == "lockstep":
            return codec.encode_lockstep(self.model, chunks, self.ids(chunks))
        return codec.encode(chunks, scoring.score(self.model, self.ids(chunks), 2000))

    def stream(self, chunks):
        return codec.pack(self.header, self.records(chunks))

    def restore(self, stream, batch=2):
        header, records = codec.unpack(stream)
        codec.check_header(self.model, self.header, header)
        return codec.decode(self.model, self.spelling, records, header.batch or batch)


@pytest.fixture(scope="module")
def one_shot(neox, neox_folder):
    return Pair(neox, neox_folder, "invariant")


@pytest.fixture(scope="module")
def lockstep(neox, neox_folder):
    return Pair(neox, neox_folder, "lockstep")


@pytest.fixture(scope="module")
def foreign(gpt2, gpt2_folder):
    return Pair(gpt2, gpt2_folder)


@pytest.fixture(params=["one_shot", "lockstep", "foreign"])
def pair(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def chunks(passage):
    rng = np.random.default_rng(1)
    text = (passage * 3).encode()
    samples = (rng.standard_normal(400) * 500).astype("<i2").tobytes()
    return [b"", bytes(range(256)), b"A", text[:2047], text[:2048], text[1:2050], rng.bytes(300), samples, b"", b"\xff"]


def test_mode_is_invariant_for_neox_and_lockstep_for_others(neox, foreign):
    assert foreign.header.mode == "lockstep" and foreign.header.batch == codec.LOCKSTEP_BATCH
    expected = "invariant" if codec.invariant(neox) else "lockstep"
    assert codec.header(neox, WEIGHTS, TOKENIZER, "fp32").mode == expected


@pytest.mark.parametrize(("batch", "count"), [(1, 1), (3, 2), (64, 1)])
def test_one_pass_encodes_and_steps_decode_at_any_batch_and_thread_count(one_shot, chunks, threads, batch, count):
    some = chunks if batch == 3 else [chunk[:150] for chunk in chunks]
    stream = one_shot.stream(some)
    threads(count)
    assert one_shot.restore(stream, batch) == some


def test_lockstep_decodes_what_lockstep_encoded(lockstep, chunks):
    short = [chunk[:400] for chunk in chunks]  # more than LOCKSTEP_BATCH: two groups
    assert lockstep.restore(lockstep.stream(short)) == short


def test_another_architecture_goes_through_lockstep(foreign, chunks):
    short = [chunk[:220] for chunk in chunks]  # several contexts of 64 tokens
    assert max(map(len, foreign.ids(short))) > 3 * foreign.model.context
    assert foreign.restore(foreign.stream(short)) == short


def test_chunks_of_many_contexts_come_back(one_shot):
    long = [np.random.default_rng(2).bytes(2049)]
    assert len(one_shot.ids(long)[0]) > 5 * one_shot.model.context
    assert one_shot.restore(one_shot.stream(long)) == long


def test_no_chunks_make_a_stream_of_a_header(pair):
    stream = pair.stream([])
    assert stream == codec.pack_header(pair.header, 0) and pair.restore(stream) == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_come_back(neox_folder, chunks, precision):
    pair = Pair(checkpoint.load(neox_folder, precision), neox_folder)
    short = [chunks[3][:100], chunks[7][:100]]
    assert pair.restore(pair.stream(short)) == short


def test_real_size_is_near_the_ideal(one_shot, chunks):
    ids = one_shot.ids(chunks)
    for data, scores, record in zip(
        chunks, scoring.score(one_shot.model, ids, 2000), one_shot.records(chunks), strict=True
    ):
        _, frequencies, totals = top_bits.intervals(seven_bit.top_bits(data))
        ideal = np.sum(scores.lengths) + np.sum(np.log2(totals / frequencies))
        assert 8 * len(record.coded) <= ideal + 0.003 * len(scores.lengths) + 1e-4 * len(data) + 8
        assert 8 * len(record.coded) >= ideal - 17  # no less, but for zeros that need not be written


def test_both_modes_take_the_same_room(one_shot, lockstep, chunks):
    short = [chunk[:300] for chunk in chunks]
    sizes = [sum(len(r.coded) for r in p.records(short)) for p in (one_shot, lockstep)]
    assert abs(sizes[0] - sizes[1]) <= len(short)


# --- the container ----------------------------------------------------------------------------------------------

small = st.integers(0, 400)
header_values = st.builds(
    codec.Header,
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.text(max_size=20),
    st.just("invariant"),
    st.binary(min_size=8, max_size=8).map(bytes.hex),
    st.text(max_size=150),
    st.text(max_size=20),
    st.just(0),
) | st.builds(
    codec.Header, *map(st.just, (WEIGHTS, TOKENIZER, "bf16", "lockstep", "00" * 8, "2", "")), st.integers(1, 1024)
)


@st.composite
def record_values(draw):
    size = draw(st.one_of(small, st.just(codec.LARGEST_CHUNK)))
    count = draw(st.integers(min(size, 1), size))
    return codec.Record(count, size, draw(st.integers(0, 2**32 - 1)), draw(st.binary(max_size=200)))


@settings(max_examples=60, deadline=None)
@given(header_values, st.lists(record_values(), max_size=3))
def test_what_is_packed_unpacks(header, records):
    stream = codec.pack(header, records)
    assert codec.unpack(stream) == (header, records)
    assert len(stream) == len(codec.pack_header(header, len(records))) + sum(len(codec.pack_record(r)) for r in records)


def test_the_layout_is_the_documented_one():
    header = codec.Header(WEIGHTS, TOKENIZER, "fp32", "lockstep", "0123456789abcdef", "2.1", "é", 300)
    expected = b"blaw\x01" + b"\xab" * 32 + b"\xcd" * 32 + b"\x04fp32" + b"\x01" + bytes.fromhex("0123456789abcdef")
    expected += b"\x032.1" + b"\x02\xc3\xa9" + b"\xac\x02" + b"\x01"
    expected += b"\x05" + b"\x80\x10" + b"\x02" + b"\x04\x03\x02\x01" + b"hi"
    assert codec.pack(header, [codec.Record(5, 2048, 0x01020304, b"hi")]) == expected


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_unpack_or_are_refused(one_shot, garbage):
    for stream in (garbage, codec.MAGIC + b"\x01" + garbage, codec.pack_header(one_shot.header, 3) + garbage):
        try:
            header, records = codec.unpack(stream)
        except codec.CorruptStream:
            continue
        assert codec.unpack(codec.pack(header, records)) == (header, records)


BIG = b"\xff" * 8 + b"\x7f"  # 2^63 - 1


@pytest.mark.parametrize(
    "tail",
    [
        BIG,  # chunks
        b"\x01" + BIG + BIG + b"\x01" + bytes(5),  # tokens and bytes
        b"\x01" + b"\x01" + BIG + b"\x01" + bytes(5),  # bytes
        b"\x01" + b"\x80\x80\x80\x80\x04" * 2 + b"\x01" + bytes(5),  # 2^30 tokens
        b"\x01" + b"\x81\x80\x40" * 2 + b"\x01" + bytes(5),  # one more than the limit
        b"\x01" + b"\x01\x01" + BIG + bytes(5),  # coded string
        b"\xff" * 20,  # a number without end
    ],
)
@pytest.mark.parametrize("mode", codec.MODES)
def test_a_huge_declared_number_is_refused_at_once(pair, tail, mode):
    header = pair.header._replace(mode=mode, batch=8 if mode == "lockstep" else 0)
    started = time.perf_counter()
    with pytest.raises(codec.CorruptStream):
        codec.unpack(codec.pack_header(header, 0)[:-1] + tail)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("mode", "batch"),
    [("invariant", 1), ("invariant", 2**62), ("lockstep", 0), ("lockstep", 1025), ("lockstep", 2**62)],
)
def test_a_batch_out_of_range_is_refused(one_shot, mode, batch):
    with pytest.raises(codec.CorruptStream, match="batch"):
        codec.unpack(codec.pack(one_shot.header._replace(mode=mode, batch=batch), []))


def test_a_chunk_above_the_limit_is_not_encoded(one_shot):
    data = bytes(codec.LARGEST_CHUNK + 1)
    with pytest.raises(InputError, match="holds chunks of up to"):
        codec.encode([data], [scoring.Scores(*np.ones((4, 1)))])


# --- a decoder written from docs/format.md, in plain integers ---------------------------------------------------


def documented_frequencies(row):
    y = np.maximum((row - row.max()) * np.array(0x3FB8AA3B, np.uint32).view(np.float32), np.float32(-60))
    k = np.trunc(y - np.float32(0.5)).astype(np.int64)
    f = y - k.astype(np.float32)
    p, *rest = np.array(
        [0x39218489, 0x3AAEC3FF, 0x3C1D955B, 0x3D635847, 0x3E75FDF0, 0x3F317218, 0x3F800000], np.uint32
    ).view(np.float32)
    for a in rest:
        p = p * f + a
    return [int(w) + 1 for w in (np.trunc(p * np.float32(2**24)).astype(np.int64) << 14) >> -k >> 12]


class DocumentedCoder:
    def __init__(self, data):
        self.data, self.at, self.span = data.ljust(8, b"\0"), 8, 2**64 - 1
        self.code = int.from_bytes(self.data[:8], "big")

    def symbol(self, frequencies):
        """The next symbol, of those with these frequencies."""
        total, start, found = sum(frequencies), 0, 0
        unit = self.span // total
        while start + frequencies[found] <= min(self.code // unit, total - 1):
            start += frequencies[found]
            found += 1
        self.code, self.span = self.code - unit * start, unit * frequencies[found]
        while self.span < 2**56:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.code, self.span, self.at = self.code * 256 + byte, self.span * 256, self.at + 1
        return found


def documented_chunks(stream, model, spelling):
    at = 0

    def take(n):
        nonlocal at
        at += n
        return stream[at - n : at]

    def varint():
        byte = take(1)[0]
        return byte if byte < 128 else byte - 128 + 128 * varint()

    assert take(5) == b"blaw\x01"
    take(64), take(varint()), take(9), take(varint()), take(varint()), varint()
    for _ in range(varint()):
        count, size, length = varint(), varint(), varint()
        check, coded = int.from_bytes(take(4), "little"), DocumentedCoder(take(length))
        bits, counters = [], {}
        flag = coded.symbol([1, 1]) if size else 0
        for i in range(size if flag else 0):
            c = 4 * (i % 2) + 2 * (bits[i - 1] if i else 0) + (bits[i - 2] if i > 1 else 0)
            counter = counters.setdefault(c, [1, 1])
            bits.append(coded.symbol(counter))
            counter[bits[-1]] += 2
        ids, half = [], model.context // 2
        for i in range(count):
            begin = 0 if i < model.context else half * ((i - model.context) // half + 1)
            logits = np.zeros(model.vocabulary, np.float32)
            if i:
                logits = model.head(model.hidden(torch.tensor([ids[begin:i]]))[0, -1:])[0].numpy()
            ids.append(coded.symbol(documented_frequencies(logits) if i else [1] * model.vocabulary))
        text = b"".join(spelling[t] for t in ids)
        assert len(text) == size
        chunk = bytes(c + 128 * b for c, b in zip(text, bits or [0] * size, strict=True))
        assert zlib.crc32(chunk) == check
        yield chunk


def test_a_decoder_written_from_the_documentation_decodes(one_shot, chunks):
    some = [*chunks[:3], chunks[7][:500], chunks[6], chunks[3][:60]]
    assert max(map(len, one_shot.ids(some))) > 1.5 * one_shot.model.context  # the third window
    assert list(documented_chunks(one_shot.stream(some), one_shot.model, one_shot.spelling)) == some


# --- damage -----------------------------------------------------------------------------------------------------

SHORT = [b"Alice had \xe9\x00", b"no pictures"]


def parts(pair, records):
    """Part -> range of its bytes in the stream of two `records`."""
    header = pair.header
    sizes = [("magic", 5), ("weights", 32), ("tokenizer", 32), ("precision", 1 + len(header.precision)), ("mode", 1)]
    sizes += [("answer", 8)]
    sizes += [("length", 1), ("torch", len(header.torch)), ("length", 1), ("instructions", len(header.instructions))]
    sizes += [("batch", 1), ("count", 1)]
    for record in records:
        sizes += [("sizes", 3), ("check", 4), ("coded", len(record.coded) - 1), ("last", 1)]
    names = [name for name, size in sizes for _ in range(size)]
    assert len(names) == len(codec.pack(header, records))
    return names


def test_a_flipped_bit_anywhere_raises_or_says_the_same(pair):
    stream, records = pair.stream(SHORT), pair.records(SHORT)
    assert pair.restore(stream) == SHORT
    names = parts(pair, records)
    harmless = set()
    for bit in range(8 * len(stream)):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = pair.restore(bytes(damaged))
        except REFUSED:
            continue
        assert found == SHORT, f"bit {bit}, in {names[bit // 8]}: other bytes, silently"
        harmless.add(names[bit // 8])
    # remarks do not matter, several last bytes can stand for one interval; lock-step may agree at another batch
    assert harmless <= {"torch", "instructions", "last"} | ({"batch"} if pair.header.batch else set())
    assert {"torch", "instructions"} <= harmless


def test_a_stream_cut_short_anywhere_raises(pair):
    stream = pair.stream(SHORT)
    for length in range(len(stream)):
        with pytest.raises(codec.CorruptStream):
            codec.unpack(stream[:length])


def test_a_stream_that_goes_on_raises(pair):
    stream = pair.stream(SHORT)
    for tail in (b"\0", b"\n", stream):
        with pytest.raises(codec.CorruptStream, match="follow the end"):
            codec.unpack(stream + tail)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_damage_raises_or_says_the_same(one_shot, data):
    stream = bytearray(one_shot.stream(SHORT))
    fixed = len(codec.pack_header(one_shot.header, len(SHORT)))
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.sampled_from([0, fixed, fixed]))
        at = data.draw(st.integers(first, max(first, len(stream) - 1)))
        kind = data.draw(st.sampled_from(["replace", "insert", "remove"]))
        new = data.draw(st.binary(min_size=1, max_size=4))
        stream[at : at + (0 if kind == "insert" else len(new))] = b"" if kind == "remove" else new
    try:
        found = one_shot.restore(bytes(stream))
    except REFUSED:
        return
    # checks stand a chunk each: whole chunks can only be taken away where the count says so too
    assert all(chunk in (*SHORT, b"") for chunk in found)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.binary(max_size=40), st.integers(0, 2**32 - 1))
def test_a_made_up_record_is_refused(one_shot, count, extra, coded, check):
    record = codec.Record(count + 1, count + 1 + extra, check, coded)
    with pytest.raises(codec.CorruptStream, match="does not pass its check"):
        codec.decode(one_shot.model, one_shot.spelling, [record], 1)


def test_a_token_that_the_tokenizer_lacks_is_refused(one_shot):
    assert one_shot.model.vocabulary > len(one_shot.spelling)
    for token in (len(one_shot.spelling), one_shot.model.vocabulary - 1):
        coded = range_coder.encode([0, token], [1, 1], [2, one_shot.model.vocabulary])
        with pytest.raises(codec.CorruptStream):
            codec.decode(one_shot.model, one_shot.spelling, [codec.Record(1, 1, 0, coded)], 1)


def test_chunks_exchanged_with_their_checks_are_other_streams(one_shot):
    first, second = one_shot.records(SHORT)
    assert one_shot.restore(codec.pack(one_shot.header, [second, first])) == SHORT[::-1]
    with pytest.raises(codec.CorruptStream):
        one_shot.restore(codec.pack(one_shot.header, [first._replace(check=second.check), second]))


# --- strangers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", "ee" * 32, "another model"),
        ("tokenizer", "ee" * 32, "another tokenizer"),
        ("precision", "bf16", "another precision"),
        ("answer", "ee" * 8, "other probabilities"),
    ],
)
def test_a_stream_made_with_something_else_is_refused(pair, field, value, message):
    stream = codec.pack(pair.header._replace(**{field: value}), pair.records(SHORT))
    with pytest.raises(InputError, match=message):
        pair.restore(stream)


def test_a_stream_of_other_weights_is_refused_even_under_the_same_name(one_shot, other_neox_folder):
    other = Pair(checkpoint.load(other_neox_folder), other_neox_folder, "invariant")
    with pytest.raises(InputError, match="other probabilities"):
        other.restore(one_shot.stream(SHORT))
    with pytest.raises(codec.CorruptStream):
        codec.decode(other.model, other.spelling, one_shot.records(SHORT), 1)


@pytest.mark.parametrize(
    ("holds", "error", "message"),
    [(True, codec.CorruptStream, "damaged"), (False, InputError, "other probabilities")],
)
def test_a_failed_decode_is_laid_to_the_machine_where_passes_differ(
    one_shot, neox_folder, monkeypatch, holds, error, message
):
    tokenizer = neox_folder / "tokenizer.json"
    mine = codec.header(
        one_shot.model, checkpoint.describe(neox_folder)["weights_sha256"], tokens.open_tokenizer(tokenizer)[2], "fp32"
    )
    records = one_shot.records(SHORT)
    assert codec.restore(codec.pack(mine, records), neox_folder, tokenizer) == b"".join(SHORT)
    monkeypatch.setattr(codec, "invariant", lambda model: holds)
    with pytest.raises(error, match=message):
        codec.restore(codec.pack(mine, [records[0]._replace(check=0)]), neox_folder, tokenizer)


def test_probabilities_off_by_one_unit_are_noticed(one_shot):
    """The known answer is a hash of intervals: one changed weight changes it."""
    model = one_shot.model
    before, place = codec.known_answer.__wrapped__(model, "invariant"), (5, 7)
    kept = model.head_weight[place].clone()
    model.head_weight[place] = kept * 1.01
    try:
        assert codec.known_answer.__wrapped__(model, "invariant") != before
    finally:
        model.head_weight[place] = kept
    assert codec.known_answer.__wrapped__(model, "invariant") == before


def test_what_decoding_met_codes_to_the_same_strings(one_shot):
    again = []
    records = one_shot.records(SHORT)
    codec.decode(one_shot.model, one_shot.spelling, records, 2, again)
    assert again == records
