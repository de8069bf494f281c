"""Chunks to a self-describing byte stream and back; docs/format.md specifies it.

Two modes. `invariant`: the intervals of the one-shot scoring pass are coded, and a decoder that advances token by
token meets the same ones, at any batch size and thread count; a known answer is computed first on each machine and
model to see whether that holds. `lockstep`: encoder and decoder make the same calls, token by token, on a batch of
fixed size; for every other case.
"""

import hashlib
import os
import zlib
from typing import NamedTuple

import numpy as np
import torch

from bitlaw import InputError
from bitlaw.compression import integer_softmax, range_coder, scoring, top_bits
from bitlaw.data import escapes, seven_bit, tokens
from bitlaw.models import checkpoint

MAGIC = b"blaw"
VERSION = 1
MODES = ("invariant", "lockstep")
LOCKSTEP_BATCH = 8
DECODE_BATCH = 64  # of the invariant mode: any number gives the same bytes
LARGEST_CHUNK = 1 << 20  # bytes: bounds what a damaged stream can make a decoder allocate
ANSWER_LENGTH = 300  # crosses a block of keys


class CorruptStream(ValueError):
    """The stream is damaged, cut short, or was made by another model; nothing was decoded."""


class Header(NamedTuple):
    """What a decoder must have in common with the encoder. Hashes are hexadecimal sha256."""

    weights: str
    tokenizer: str
    precision: str
    mode: str
    answer: str  # 16 hexadecimal digits: hash of the intervals of a known text under this model
    torch: str
    instructions: str
    batch: int  # of lock-step; 0 in the invariant mode


class Record(NamedTuple):
    """One chunk in the stream."""

    tokens: int
    bytes: int
    check: int  # crc32 of the chunk
    coded: bytes


# --- the model's part: probabilities by steps -------------------------------------------------------------------


def steps(model, ids, count):
    """Yield (i, logits of token i: float32 numpy array `[batch, vocabulary]`) for i from 1 to count - 1.

    `ids`, int64 numpy array `[batch, count]`, is read up to i - 1 when i is yielded: a decoder fills column i
    before it asks for the next. The context moves as in `scoring.windows`.
    """
    for window in scoring.windows(count, model.context):
        cache = model.new_cache(len(ids), window.end - window.begin)
        states = model.hidden(torch.from_numpy(ids[:, window.begin : window.first].copy()), cache, 0)[:, -1]
        for i in range(window.first, window.end):
            if i > window.first:
                states = model.hidden(torch.from_numpy(ids[:, i - 1 : i].copy()), cache, i - 1 - window.begin)[:, 0]
            yield i, model.head(states).cpu().numpy()


def _answer_ids(model, batch):
    length = min(ANSWER_LENGTH, model.context)
    return (np.arange(batch * length).reshape(batch, length) * 7919 + 13) % model.vocabulary


def known_answer(model, mode):
    """16 hexadecimal digits: hash of the intervals that this machine computes for a fixed text, in this mode."""
    if mode == "invariant":
        ids = _answer_ids(model, 1)
        logits = model.head(model.hidden(torch.from_numpy(ids))[0, :-1]).cpu().numpy()
        found = integer_softmax.intervals(logits, ids[0, 1:])
    else:
        ids = _answer_ids(model, LOCKSTEP_BATCH)[:, :48]
        found = [integer_softmax.cumulative(row[0]) for _, row in steps(model, ids, ids.shape[1])]
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in found)).hexdigest()[:16]


def invariant(model):
    """Whether one-shot and step-by-step passes of this model agree to the last bit here.

    Compares both at several batch sizes, thread counts and positions, on the CPU in float32. Other architectures,
    devices and dtypes are never trusted with it: in bfloat16 one step of 400 was seen to differ, too rare a fault
    for a test to find each time.
    """
    if model.architecture != "gpt_neox" or model.device.type != "cpu" or model.dtype != torch.float32:
        return False
    ids = torch.from_numpy(_answer_ids(model, 5))
    length, threads = ids.shape[1], torch.get_num_threads()
    starts = sorted({0, 1, length // 5, length // 2, *(n for n in (254, 255, 256) if n < length - 2), length - 2})
    try:
        expected = model.hidden(ids)
        logits = model.head(expected.flatten(0, 1)).view(*ids.shape, -1)
        for count in {1, 2, threads}:
            torch.set_num_threads(count)
            for batch in (1, 2, 5):
                cache, past = model.new_cache(batch, length), 0
                for start in starts:
                    if start > past:
                        model.hidden(ids[:batch, past:start], cache, past)
                    for i in (start, start + 1):
                        state = model.hidden(ids[:batch, i : i + 1], cache, i)[:, 0]
                        if not torch.equal(state, expected[:batch, i]):
                            return False
                        if not torch.equal(model.head(state), logits[:batch, i]):
                            return False
                    past = start + 2
    finally:
        torch.set_num_threads(threads)
    return True


def instructions(device):
    """What chose the kernels: torch's level and the matrix library's order of summation, or the GPU and its CUDA."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} sm_{major}{minor} CUDA {torch.version.cuda}"
    return f"{torch.backends.cpu.get_cpu_capability()} MKL_CBWR={os.environ.get('MKL_CBWR', '')}"


def header(model, weights, tokenizer, precision, mode=None):
    """The header of streams made here with `model`; the mode is found out when not given."""
    mode = mode or ("invariant" if invariant(model) else "lockstep")
    batch = LOCKSTEP_BATCH if mode == "lockstep" else 0
    answer = known_answer(model, mode)
    return Header(weights, tokenizer, precision, mode, answer, torch.__version__, instructions(model.device), batch)


def check_header(model, mine, found):
    """Raise InputError, naming the difference, when a stream with header `found` cannot be decoded by `mine`."""
    names = {"weights": "model", "tokenizer": "tokenizer", "precision": "precision"}
    for field, name in names.items():
        if getattr(mine, field) != getattr(found, field):
            raise InputError(
                f"the stream was made with another {name} ({getattr(found, field)[:16]}, "
                f"here {getattr(mine, field)[:16]}): give the {name} that it was made with"
            )
    if known_answer(model, found.mode) != found.answer:
        raise InputError(_elsewhere(mine, found))


def _elsewhere(mine, found):
    return (
        f"this machine computes other probabilities than the one that encoded (there torch {found.torch}, "
        f"{found.instructions}; here torch {mine.torch}, {mine.instructions}): decode where they agree"
    )


# --- one chunk --------------------------------------------------------------------------------------------------


def _record(data, count, token_intervals):
    """Record of the chunk `data` from its number of tokens and (starts, frequencies, totals) of those tokens."""
    if len(data) > LARGEST_CHUNK:
        raise InputError(f"a chunk of {len(data)} bytes: a stream holds chunks of up to {LARGEST_CHUNK}")
    parts = zip(top_bits.intervals(seven_bit.top_bits(data)), token_intervals, strict=True)
    coded = range_coder.encode(*(np.concatenate(pair) for pair in parts))
    return Record(count, len(data), zlib.crc32(data), coded)


def encode(chunks, scores):
    """Records of `chunks` (bytes) from the one-shot `scores` of their tokens: the invariant mode."""
    return [
        _record(data, len(s.starts), (s.starts, s.frequencies, s.totals))
        for data, s in zip(chunks, scores, strict=True)
    ]


def encode_lockstep(model, chunks, ids):
    """Records of `chunks` (bytes) with token ids `ids`, made by the calls that the decoder will make."""
    records = []
    for first in range(0, len(chunks), LOCKSTEP_BATCH):
        group = ids[first : first + LOCKSTEP_BATCH]
        counts = [len(g) for g in group]
        table = np.zeros((LOCKSTEP_BATCH, max(counts)), dtype=np.int64)
        for row, own in enumerate(group):
            table[row, : len(own)] = own
        found = [np.empty((3, n), dtype=np.uint64) for n in counts]
        for row, n in enumerate(counts):
            if n:
                found[row][:, 0] = scoring.first_token(group[row][0], model.vocabulary)[:3]
        for i, logits in steps(model, table, max(counts)):
            starts, frequencies, totals, _ = integer_softmax.intervals(logits[: len(group)], table[: len(group), i])
            for row in range(len(group)):
                if i < counts[row]:
                    found[row][:, i] = starts[row], frequencies[row], totals[row]
        records += [
            _record(data, n, tuple(f))
            for data, n, f in zip(chunks[first : first + LOCKSTEP_BATCH], counts, found, strict=True)
        ]
    return records


def decode(model, spelling, records, batch, again=None):
    """The chunks (bytes) of `records`, decoded `batch` at a time, or CorruptStream.

    `spelling` gives the bytes of each token. In lock-step `batch` must be the header's. To a list `again` is added each
    chunk's record coded anew from the intervals that the steps of decoding met: what an encoder by steps would write.
    """
    chunks, escaped = [], escapes.table(spelling)
    for first in range(0, len(records), batch):
        group = records[first : first + batch]
        count = max(r.tokens for r in group)
        ids = np.zeros((batch, count), dtype=np.int64)
        open_streams, planes = [], []
        met = [np.empty((3, record.tokens), dtype=np.uint64) for record in group]
        for row, record in enumerate(group):
            data, state = range_coder.start_decoding(record.coded)
            planes.append(top_bits.decode(state, data, record.bytes))
            if record.tokens:
                one, total = np.uint64(1), np.uint64(model.vocabulary)
                ids[row, 0] = range_coder.target(state, total)
                range_coder.consume(state, data, np.uint64(ids[row, 0]), one, total)
                met[row][:, 0] = ids[row, 0], one, total
            open_streams.append((state, data))
        for i, logits in steps(model, ids, count):
            for row, record in enumerate(group):
                if i < record.tokens:
                    below = integer_softmax.cumulative(logits[row])
                    ids[row, i] = token = range_coder.decode_symbol(*open_streams[row], below)
                    met[row][:, i] = below[token], below[token + 1] - below[token], below[-1]
        for row, record in enumerate(group):
            # a model may know more tokens than its tokenizer; only a damaged stream has them
            text = b"".join(spelling[t] or b"" for t in ids[row, : record.tokens] if t < len(spelling))
            text = escapes.read(escaped, text)
            data = seven_bit.from_ascii(text, planes[row]) if len(text) == record.bytes else None
            if data is None or zlib.crc32(data) != record.check:
                raise CorruptStream(f"chunk {first + row}: does not pass its check; the stream is damaged")
            chunks.append(data)
            if again is not None:
                again.append(_record(data, record.tokens, tuple(met[row])))
    return chunks


# --- the container ----------------------------------------------------------------------------------------------


def _varint(n):
    """Unsigned LEB128."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def _text(s):
    data = s.encode()
    return _varint(len(data)) + data


def pack_header(header, count):
    """The fixed part of a stream with `count` chunks."""
    return b"".join(
        (
            MAGIC,
            bytes([VERSION]),
            bytes.fromhex(header.weights),
            bytes.fromhex(header.tokenizer),
            _text(header.precision),
            bytes([MODES.index(header.mode)]),
            bytes.fromhex(header.answer),
            _text(header.torch),
            _text(header.instructions),
            _varint(header.batch),
            _varint(count),
        )
    )


def pack_record(record):
    """One chunk's part of a stream."""
    sizes = _varint(record.tokens) + _varint(record.bytes) + _varint(len(record.coded))
    return sizes + record.check.to_bytes(4, "little") + record.coded


def pack(header, records):
    """The whole stream."""
    return pack_header(header, len(records)) + b"".join(map(pack_record, records))


def unpack(stream):
    """(Header, records) of a whole stream; CorruptStream when it is none, is cut short or goes on past its end."""
    at = 0

    def take(n):
        nonlocal at
        if at + n > len(stream):
            raise CorruptStream(f"the stream ends after {len(stream)} bytes, in the middle; fetch it again")
        at += n
        return stream[at - n : at]

    def varint():
        value, shift = 0, 0
        while shift < 63:
            byte = take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise CorruptStream(f"byte {at}: a number without end; the stream is damaged")

    def text():
        try:
            return take(varint()).decode()
        except UnicodeDecodeError:
            raise CorruptStream(f"byte {at}: not text; the stream is damaged") from None

    if stream[: len(MAGIC)] != MAGIC:
        raise CorruptStream("not a bitlaw stream: it does not begin with 'blaw'")
    take(len(MAGIC))
    if (version := take(1)[0]) != VERSION:
        raise CorruptStream(f"stream version {version}; this program reads version {VERSION}")
    weights, tokenizer, precision, mode = take(32).hex(), take(32).hex(), text(), take(1)[0]
    if mode >= len(MODES):
        raise CorruptStream(f"unknown mode {mode}; the stream is damaged")
    header = Header(weights, tokenizer, precision, MODES[mode], take(8).hex(), text(), text(), varint())
    records = []
    for _ in range(varint()):
        tokens, size, coded = varint(), varint(), varint()
        if tokens > 2 * size or (size > 0 and tokens == 0):  # an escaped byte may take two
            raise CorruptStream(f"chunk {len(records)}: {tokens} tokens for {size} bytes; the stream is damaged")
        if size > LARGEST_CHUNK:
            raise CorruptStream(f"chunk {len(records)}: {size} bytes, above {LARGEST_CHUNK}; the stream is damaged")
        check = int.from_bytes(take(4), "little")
        records.append(Record(tokens, size, check, take(coded)))
    if at != len(stream):
        raise CorruptStream(f"{len(stream) - at} bytes follow the end of the stream; it is damaged")
    if header.batch not in (range(1, 1025) if header.mode == "lockstep" else (0,)):
        raise CorruptStream(f"{header.mode} batch {header.batch}; the stream is damaged")
    return header, records


def restore(stream, folder, tokenizer, device="cpu", again=None):
    """The bytes that `stream` was made from, decoded with the checkpoint in `folder` and the file `tokenizer`.

    again: see `decode`.
    Raises CorruptStream, or InputError when the checkpoint or this machine is not the one it was made with.
    """
    found, records = unpack(stream)
    _, spelling, sha256 = tokens.open_tokenizer(tokenizer)
    model = checkpoint.load(folder, found.precision, device)
    mine = header(model, checkpoint.describe(folder)["weights_sha256"], sha256, found.precision, found.mode)
    if records:
        check_header(model, mine, found)
    try:
        batch = found.batch or min(DECODE_BATCH, max(1, len(records)))
        return b"".join(decode(model, spelling, records, batch, again))
    except CorruptStream:
        if found.mode == "invariant" and not invariant(model):  # asked only now: the answer takes as long as a chunk
            raise InputError(_elsewhere(mine, found)) from None
        raise
