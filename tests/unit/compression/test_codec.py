"""The stream: every byte comes back, and what is damaged or foreign raises and decodes to nothing else."""

import json
import time
import zlib
from functools import cache

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import exact_reference
from bitlaw import InputError
from bitlaw.compression import codec, lockstep, range_coder, scoring, stream_format, top_bits
from bitlaw.compression.stream_format import CorruptStream, Header, Lockstep, Record, pack, pack_header, unpack
from bitlaw.data import seven_bit, tokens
from bitlaw.models import checkpoint
from tiny_models import neox_checkpoint, random_checkpoint

WEIGHTS, TOKENIZER = "ab" * 32, "cd" * 32
REFUSED = (CorruptStream, InputError)


@pytest.fixture(scope="module", autouse=True)
def remembered():
    """The known answer of a model is computed once, not once a stream."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockstep, "known_answer", cache(lockstep.known_answer))
        yield


class Pair:
    """A model with its tokenizer, as both ends of a stream have it."""

    def __init__(self, folder, precision):
        self.model, self.precision = checkpoint.load(folder, precision), precision
        self.tokenizer, self.spelling, _ = tokens.open_tokenizer(folder / "tokenizer.json")

    def header(self, count):
        return codec.header(self.model, WEIGHTS, TOKENIZER, self.precision, count)

    def ids(self, chunks):
        return tokens.encode(self.tokenizer, self.spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])

    def records(self, chunks):
        ids = self.ids(chunks)
        if self.precision != "exact":
            return codec.encode_lockstep(self.model, self.header(len(chunks)), chunks, ids)
        scores = scoring.score(self.model, ids, 2000)
        return [codec.record(data, own[:3]) for data, own in zip(chunks, scores, strict=True)]

    def stream(self, chunks):
        return pack(self.header(len(chunks)), self.records(chunks))

    def restore(self, stream, threads=1):
        header, records = unpack(stream)
        codec.check(header, WEIGHTS, TOKENIZER)
        if header.precision != self.precision:  # `codec.restore` loads the model in the header's precision
            raise InputError("another precision")
        if header.lockstep:
            lockstep.check(self.model, header.lockstep)
        return [data for data, _ in codec.decode(self.model, self.spelling, header, records, threads)]


@pytest.fixture(scope="module")
def exact(neox_folder):
    return Pair(neox_folder, "exact")


@pytest.fixture(scope="module")
def in_floats(neox_folder):
    return Pair(neox_folder, "fp32")


@pytest.fixture(scope="module")
def foreign(gpt2_folder):
    return Pair(gpt2_folder, "fp32")


@pytest.fixture(scope="module")
def narrow(tokenizer, tmp_path_factory):
    """A Llama whose one key/value head has eight numbers."""
    config = transformers.LlamaConfig(
        vocab_size=304, hidden_size=128, intermediate_size=64, num_hidden_layers=2, max_position_embeddings=256,
        num_attention_heads=16, num_key_value_heads=1,
    )  # fmt: skip
    folder = random_checkpoint(config, tmp_path_factory.mktemp("narrow"), scale=4)
    tokenizer.save(str(folder / "tokenizer.json"))
    return Pair(folder, "fp32")


@pytest.fixture(params=["exact", "in_floats", "foreign"])
def pair(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def chunks(passage):
    rng = np.random.default_rng(1)
    text = (passage * 3).encode()
    samples = (rng.standard_normal(400) * 500).astype("<i2").tobytes()
    return [b"", bytes(range(256)), b"A", text[:2047], text[:2048], text[1:2050], rng.bytes(300), samples, b"", b"\xff"]


@pytest.mark.parametrize("threads", [1, 2])
def test_one_pass_encodes_and_steps_decode_on_any_number_of_threads(exact, chunks, threads):
    assert exact.restore(exact.stream(chunks), threads) == chunks


@pytest.mark.parametrize("together", [1, 3, 32])
def test_any_number_of_chunks_decodes_together(exact, chunks, together, monkeypatch):
    from bitlaw.compression import exact_decoder

    monkeypatch.setattr(exact_decoder, "TOGETHER", together)
    some = [chunk[:700] for chunk in chunks]
    assert exact.restore(exact.stream(some)) == some


def test_lockstep_decodes_what_lockstep_encoded(in_floats, chunks):
    short = [chunk[:400] for chunk in chunks]  # more than a batch: two groups
    assert len(short) > lockstep.BATCH and in_floats.restore(in_floats.stream(short)) == short


@pytest.mark.parametrize("here", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_lockstep_decodes_on_the_encoders_number_of_threads(narrow, chunks, threads, monkeypatch, here):
    """Products as narrow as this model's keys are summed in another order by each number of threads."""
    monkeypatch.setattr(lockstep, "known_answer", lockstep.known_answer.__wrapped__)  # anew, on each number of threads
    threads(2)
    stream = narrow.stream([chunk[:90] for chunk in chunks[3:6]])
    assert narrow.header(3).lockstep.threads == 2
    threads(here)
    assert narrow.restore(stream) == [chunk[:90] for chunk in chunks[3:6]]
    assert torch.get_num_threads() == 2


def test_one_chunk_in_lockstep_does_not_pay_for_eight(in_floats, chunks):
    assert in_floats.header(1).lockstep.batch == 1
    assert in_floats.restore(in_floats.stream(chunks[2:3])) == chunks[2:3]


def test_another_architecture_goes_through_lockstep(foreign, chunks):
    short = [chunk[:220] for chunk in chunks]  # several contexts of 64 tokens
    assert max(map(len, foreign.ids(short))) > 3 * foreign.model.context
    assert foreign.restore(foreign.stream(short)) == short


def test_chunks_of_many_contexts_come_back(exact):
    long = [np.random.default_rng(2).bytes(2049)]
    assert len(exact.ids(long)[0]) > 5 * exact.model.context
    assert exact.restore(exact.stream(long)) == long


def test_no_chunks_make_a_stream_of_a_header(pair):
    stream = pair.stream([])
    assert stream == pack_header(pair.header(0), 0) and pair.restore(stream) == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_come_back(neox_folder, chunks, precision):
    pair = Pair(neox_folder, precision)
    short = [chunks[3][:100], chunks[7][:100]]
    assert pair.restore(pair.stream(short)) == short


def test_real_size_is_near_the_ideal(exact, chunks):
    ids = exact.ids(chunks)
    for data, scores, record in zip(chunks, scoring.score(exact.model, ids, 2000), exact.records(chunks), strict=True):
        _, frequencies, totals = top_bits.intervals(seven_bit.top_bits(data))
        ideal = np.sum(scores.lengths) + np.sum(np.log2(totals / frequencies))
        assert 8 * len(record.coded) <= ideal + 0.003 * len(scores.lengths) + 1e-4 * len(data) + 8
        assert 8 * len(record.coded) >= ideal - 17  # no less, but for zeros that need not be written


def test_exact_and_lockstep_take_the_same_room(exact, in_floats, chunks):
    short = [chunk[:300] for chunk in chunks]
    sizes = [sum(len(r.coded) for r in p.records(short)) for p in (exact, in_floats)]
    assert abs(sizes[0] - sizes[1]) <= len(short)


# --- the container ----------------------------------------------------------------------------------------------

small = st.integers(0, 400)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
same_calls = st.builds(
    Lockstep,
    st.binary(min_size=8, max_size=8).map(bytes.hex),
    st.text(max_size=150),
    st.text(max_size=20),
    st.integers(1, 1024),
    st.integers(1, 4096),
)
window = st.none() | st.integers(1, 2**17), st.none() | st.integers(0, 2**18)
header_values = st.builds(Header, hashes, hashes, st.just("exact"), st.integers(0, 2**40), st.none(), *window)
header_values |= st.builds(
    Header, hashes, hashes, st.text(max_size=20).filter(lambda name: name != "exact"), st.just(0), same_calls, *window
)


@st.composite
def record_values(draw):
    size = draw(st.one_of(small, st.just(stream_format.LARGEST_CHUNK)))
    count = draw(st.integers(min(size, 1), size))
    most = stream_format.MOST_CODED * size  # more is taken for damage
    return Record(count, size, draw(st.integers(0, 2**32 - 1)), draw(st.binary(max_size=min(200, most))))


@settings(max_examples=60, deadline=None)
@given(header_values, st.lists(record_values(), max_size=3))
def test_what_is_packed_unpacks(header, records):
    stream = pack(header, records)
    assert unpack(stream) == (header, records)
    assert len(stream) == len(pack_header(header, len(records))) + sum(
        len(stream_format.pack_record(r)) for r in records
    )


def test_the_layout_is_the_documented_one():
    hashes = b"\xab" * 32 + b"\xcd" * 32
    record = b"\x05" + b"\x80\x10" + b"\x02" + b"\x04\x03\x02\x01" + b"hi"
    records = [Record(5, 2048, 0x01020304, b"hi")]
    expected = b"blaw\x02" + hashes + b"\x05exact" + b"\x01" + b"\x01" + record
    assert pack(Header(WEIGHTS, TOKENIZER, "exact", 1, None), records) == expected
    expected = b"blaw\x02" + hashes + b"\x04fp32" + bytes.fromhex("0123456789abcdef")
    expected += b"\x032.1" + b"\x02\xc3\xa9" + b"\xac\x02" + b"\x10" + b"\x01" + record
    same = Lockstep("0123456789abcdef", "2.1", "é", 300, 16)
    assert pack(Header(WEIGHTS, TOKENIZER, "fp32", 0, same), records) == expected


def test_a_stream_of_version_1_is_refused_in_one_line(exact):
    stream = exact.stream([b"abc"])
    with pytest.raises(InputError, match="^stream version 1; this program reads the versions 2 and 3: decode it with"):
        unpack(stream[:4] + b"\x01" + stream[5:])


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_unpack_or_are_refused(exact, garbage):
    for stream in (garbage, stream_format.MAGIC + b"\x02" + garbage, pack_header(exact.header(3), 3) + garbage):
        try:
            header, records = unpack(stream)
        except REFUSED:
            continue
        assert unpack(pack(header, records)) == (header, records)


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
def test_a_huge_declared_number_is_refused_at_once(pair, tail):
    started = time.perf_counter()
    with pytest.raises(CorruptStream):
        unpack(pack_header(pair.header(0), 0)[:-1] + tail)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (1025, 1), (2**62, 1), (1, 0), (1, 4097)])
def test_a_batch_or_a_number_of_threads_out_of_range_is_refused(in_floats, batch, threads):
    header = in_floats.header(1)
    wrong = header._replace(lockstep=header.lockstep._replace(batch=batch, threads=threads))
    with pytest.raises(CorruptStream, match="batch"):
        unpack(pack(wrong, []))


def test_a_chunk_above_the_limit_is_not_encoded(exact):
    data = bytes(stream_format.LARGEST_CHUNK + 1)
    with pytest.raises(InputError, match="holds chunks of up to"):
        codec.record(data, np.ones((3, 1), dtype=np.uint64))


# --- a decoder written from docs/format.md, in plain integers ---------------------------------------------------


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


def documented_chunks(stream, frequencies, model, spelling):
    """frequencies: of what follows a list of tokens, by docs/arithmetic.md; of `model` only the sizes count."""
    at = 0

    def take(n):
        nonlocal at
        at += n
        return stream[at - n : at]

    def varint():
        byte = take(1)[0]
        return byte if byte < 128 else byte - 128 + 128 * varint()

    assert take(5) == b"blaw\x02"
    take(64)
    assert take(varint()) == b"exact" and varint() == 1
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
            ids.append(coded.symbol(frequencies(ids[begin:i]) if i else [1] * model.vocabulary))
        text = b"".join(spelling[t] for t in ids)
        assert len(text) == size
        chunk = bytes(c + 128 * b for c, b in zip(text, bits or [0] * size, strict=True))
        assert zlib.crc32(chunk) == check
        yield chunk


def test_a_decoder_written_from_the_documentation_decodes(tokenizer, tmp_path):
    folder = neox_checkpoint(tokenizer, tmp_path, seed=5, max_position_embeddings=8)
    pair = Pair(folder, "exact")
    some = [b"", b"Al\xe9\xff", b"she, HERSELF, found it", b"\x00"]
    assert max(map(len, pair.ids(some))) > 1.5 * pair.model.context  # the third window
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")

    def frequencies(ids):
        return exact_reference.frequencies(exact_reference.logits(config, tensors, ids)[-1])

    assert list(documented_chunks(pair.stream(some), frequencies, pair.model, pair.spelling)) == some


# --- damage -----------------------------------------------------------------------------------------------------

SHORT = [b"Alice had \xe9\x00", b"no pictures"]


def parts(header, records):
    """The name of the part that each byte of the stream of two `records` belongs to."""
    sizes = [("magic", 5), ("weights", 32), ("tokenizer", 32), ("precision", 1 + len(header.precision))]
    if header.lockstep:
        sizes += [("answer", 8), ("length", 1), ("software", len(header.lockstep.software))]
        sizes += [("length", 1), ("machine", len(header.lockstep.machine)), ("batch", 1), ("threads", 1)]
    else:
        sizes += [("arithmetic", 1)]
    sizes += [("count", 1)]
    for record in records:
        sizes += [("sizes", 3), ("check", 4), ("coded", len(record.coded) - 1), ("last", 1)]
    names = [name for name, size in sizes for _ in range(size)]
    assert len(names) == len(pack(header, records))
    return names


def test_a_flipped_bit_anywhere_raises_or_says_the_same(pair):
    stream, records = pair.stream(SHORT), pair.records(SHORT)
    assert pair.restore(stream) == SHORT
    names = parts(pair.header(2), records)
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
    assert harmless <= {"software", "machine", "last"} | ({"batch", "threads"} if pair.precision != "exact" else set())
    assert harmless >= ({"software", "machine"} if pair.precision != "exact" else set())


def test_a_stream_cut_short_anywhere_raises(pair):
    stream = pair.stream(SHORT)
    for length in range(len(stream)):
        with pytest.raises(CorruptStream):
            unpack(stream[:length])


def test_a_stream_that_goes_on_raises(pair):
    stream = pair.stream(SHORT)
    for tail in (b"\0", b"\n", stream):
        with pytest.raises(CorruptStream, match="follow the end"):
            unpack(stream + tail)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_damage_raises_or_says_the_same(exact, data):
    stream = bytearray(exact.stream(SHORT))
    fixed = len(pack_header(exact.header(2), 2))
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.sampled_from([0, fixed, fixed]))
        at = data.draw(st.integers(first, max(first, len(stream) - 1)))
        kind = data.draw(st.sampled_from(["replace", "insert", "remove"]))
        new = data.draw(st.binary(min_size=1, max_size=4))
        stream[at : at + (0 if kind == "insert" else len(new))] = b"" if kind == "remove" else new
    try:
        found = exact.restore(bytes(stream))
    except REFUSED:
        return
    # checks stand a chunk each: whole chunks can only be taken away where the count says so too
    assert all(chunk in (*SHORT, b"") for chunk in found)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.binary(max_size=40), st.integers(0, 2**32 - 1))
def test_a_made_up_record_is_refused(exact, count, extra, coded, check):
    record = Record(count + 1, count + 1 + extra, check, coded)
    with pytest.raises(CorruptStream, match="does not pass its check"):
        list(codec.decode(exact.model, exact.spelling, exact.header(1), [record]))


def test_a_token_that_the_tokenizer_lacks_is_refused(exact):
    assert exact.model.vocabulary > len(exact.spelling)
    for token in (len(exact.spelling), exact.model.vocabulary - 1):
        coded = range_coder.encode([0, token], [1, 1], [2, exact.model.vocabulary])
        with pytest.raises(CorruptStream):
            list(codec.decode(exact.model, exact.spelling, exact.header(1), [Record(1, 1, 0, coded)]))


def test_chunks_exchanged_with_their_checks_are_other_streams(exact):
    first, second = exact.records(SHORT)
    assert exact.restore(pack(exact.header(2), [second, first])) == SHORT[::-1]
    with pytest.raises(CorruptStream):
        exact.restore(pack(exact.header(2), [first._replace(check=second.check), second]))


def test_what_decoding_met_codes_to_the_same_strings(pair):
    records = pair.records(SHORT)
    met = codec.decode(pair.model, pair.spelling, pair.header(2), records)
    assert [again for _, again in met] == records


# --- strangers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", "ee" * 32, r"another model \(sha256 from digit 1 on ee"),
        ("weights", "ab" * 31 + "ee", r"another model \(sha256 from digit 49 on (ab){7}ee, here (ab){8}\)"),
        ("tokenizer", "ee" * 32, "another tokenizer"),
    ],
)
def test_a_stream_made_with_other_files_is_refused(pair, field, value, message):
    stream = pack(pair.header(2)._replace(**{field: value}), pair.records(SHORT))
    with pytest.raises(InputError, match=message):
        pair.restore(stream)


def test_a_stream_of_another_arithmetic_is_refused(exact):
    stream = pack(exact.header(2)._replace(arithmetic=2), exact.records(SHORT))
    with pytest.raises(InputError, match="version 2 of the exact arithmetic; this program computes version 1: decode"):
        exact.restore(stream)


def test_a_machine_that_computes_other_probabilities_is_refused(in_floats):
    header = in_floats.header(2)
    other = header._replace(lockstep=header.lockstep._replace(answer="ee" * 8))
    with pytest.raises(InputError, match=r"other probabilities .* or encode with precision exact"):
        in_floats.restore(pack(other, in_floats.records(SHORT)))


def test_a_stream_of_other_weights_does_not_decode_even_under_the_same_name(exact, other_neox_folder):
    other = Pair(other_neox_folder, "exact")
    with pytest.raises(CorruptStream):
        other.restore(exact.stream(SHORT))


def test_probabilities_off_by_one_unit_are_noticed(in_floats):
    """The known answer of lock-step is a hash of frequencies: one changed weight changes it."""
    model, answer = in_floats.model, lockstep.known_answer.__wrapped__
    before, place = answer(model, 1), (5, 7)
    kept = model.head_weight[place].clone()
    model.head_weight[place] = kept * 1.01
    try:
        assert answer(model, 1) != before
    finally:
        model.head_weight[place] = kept
    assert answer(model, 1) == before
