"""The container of a stream: a header, then a record for each chunk; docs/format.md specifies every byte.

Nothing of a model or of arithmetic here: bytes to tuples and back.
"""

import io
from typing import NamedTuple

from bitlaw import InputError

MAGIC = b"blaw"
VERSION = 2
FRAMED = 3  # version of a stream whose windows are of a given length or have a token in front; else as version 2
EXACT = "exact"  # the precision whose streams decode on every machine; all others are coded in lock-step
LARGEST_CHUNK = 1 << 20  # bytes: bounds what a damaged stream can make a decoder allocate
LARGEST_BATCH, MOST_THREADS = 1024, 4096
LARGEST_TEXT = 1 << 12  # bytes
# of a coded string, for each byte of its chunk: two tokens of 48 bits at most, and a top bit of 22 (docs/format.md)
MOST_CODED = 16
PIECE = 1 << 20  # bytes that are asked of a file at a time, whatever a damaged length says


class CorruptStream(ValueError):
    """The stream is damaged, cut short, or was made by another model; nothing was decoded."""


class Lockstep(NamedTuple):
    """What a decoder must repeat, call by call, where the arithmetic is not exact."""

    answer: str  # 16 hexadecimal digits: hash of the intervals of a known text under this model
    software: str  # only explains a refusal
    machine: str  # only explains a refusal
    batch: int  # rows that advance together
    threads: int  # of the matrix products


class Header(NamedTuple):
    """What a decoder must have in common with the encoder. Hashes are hexadecimal sha256."""

    weights: str
    tokenizer: str
    precision: str
    arithmetic: int  # version of the exact arithmetic (docs/arithmetic.md); 0 in lock-step
    lockstep: Lockstep | None  # None where the arithmetic is exact
    context: int | None = None  # positions of a window; None: what config.json says
    prefix: int | None = None  # id of the token in front of every window, if there is one


class Record(NamedTuple):
    """One chunk in the stream."""

    tokens: int
    bytes: int
    check: int  # crc32 of the chunk
    coded: bytes


def _varint(number):
    """Unsigned LEB128."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _text(string):
    data = string.encode()
    return _varint(len(data)) + data


def pack_header(header, count):
    """The fixed part of a stream with `count` chunks."""
    framed = header.context is not None or header.prefix is not None
    fixed = MAGIC + bytes([FRAMED if framed else VERSION])
    fixed += bytes.fromhex(header.weights) + bytes.fromhex(header.tokenizer) + _text(header.precision)
    if framed:
        fixed += _varint(header.context or 0) + _varint(0 if header.prefix is None else header.prefix + 1)
    if header.lockstep is None:
        return fixed + _varint(header.arithmetic) + _varint(count)
    answer, software, machine, batch, threads = header.lockstep
    same = bytes.fromhex(answer) + _text(software) + _text(machine) + _varint(batch) + _varint(threads)
    return fixed + same + _varint(count)


def pack_record(record):
    """One chunk's part of a stream."""
    sizes = _varint(record.tokens) + _varint(record.bytes) + _varint(len(record.coded))
    return sizes + record.check.to_bytes(4, "little") + record.coded


def pack(header, records):
    """The whole stream."""
    return pack_header(header, len(records)) + b"".join(map(pack_record, records))


class _Reader:
    """A position in a binary file that is read from front to back."""

    def __init__(self, file):
        self.file, self.position = file, 0

    def take(self, count):
        parts, left = [], count
        while left:
            part = self.file.read(min(left, PIECE))
            self.position += len(part)
            if not part:
                raise CorruptStream(f"the stream ends after {self.position} bytes, in the middle; fetch it again")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def varint(self):
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise CorruptStream(f"byte {self.position}: a number without end; the stream is damaged")

    def text(self):
        size = self.varint()
        if size > LARGEST_TEXT:
            raise CorruptStream(f"byte {self.position}: a text of {size} bytes; the stream is damaged")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise CorruptStream(f"byte {self.position}: not text; the stream is damaged") from None


def unpack(stream):
    """(Header, records) of a whole stream (bytes); raises what `read` does."""
    header, _, records = read(io.BytesIO(stream))
    return header, list(records)


def read(file):
    """(Header, number of records, iterator over them) of the stream in the binary file `file`, read as it is asked for.

    Raises CorruptStream, at once or by the iterator, when it is none, is cut short or goes on past its end, and
    InputError for another version.
    """
    reader = _Reader(file)
    if file.read(len(MAGIC)) != MAGIC:
        raise CorruptStream("not a bitlaw stream: it does not begin with 'blaw'")
    reader.position = len(MAGIC)
    if (version := reader.take(1)[0]) not in (VERSION, FRAMED):
        raise InputError(
            f"stream version {version}; this program reads the versions {VERSION} and {FRAMED}: decode it with the "
            "release that made it"
        )
    header, count = _unpack_header(reader, version), reader.varint()
    return header, count, _unpack_records(reader, count)


def _unpack_records(reader, count):
    for number in range(count):
        yield _unpack_record(reader, number)
    if reader.file.read(1):
        raise CorruptStream(f"more bytes follow the end of the stream, byte {reader.position}; it is damaged")


def _unpack_header(reader, version):
    weights, tokenizer, precision = reader.take(32).hex(), reader.take(32).hex(), reader.text()
    context, prefix = (reader.varint(), reader.varint()) if version == FRAMED else (0, 0)
    window = context or None, prefix - 1 if prefix else None
    if precision == EXACT:
        return Header(weights, tokenizer, precision, reader.varint(), None, *window)
    same = Lockstep(reader.take(8).hex(), reader.text(), reader.text(), reader.varint(), reader.varint())
    if not 1 <= same.batch <= LARGEST_BATCH or not 1 <= same.threads <= MOST_THREADS:
        raise CorruptStream(f"lock-step batch {same.batch} on {same.threads} threads; the stream is damaged")
    return Header(weights, tokenizer, precision, 0, same, *window)


def _unpack_record(reader, number):
    tokens, size, coded = reader.varint(), reader.varint(), reader.varint()
    if tokens > 2 * size or (size > 0 and tokens == 0):  # an escaped byte may take two
        raise CorruptStream(f"chunk {number}: {tokens} tokens for {size} bytes; the stream is damaged")
    if size > LARGEST_CHUNK:
        raise CorruptStream(f"chunk {number}: {size} bytes, above {LARGEST_CHUNK}; the stream is damaged")
    if coded > MOST_CODED * size:
        raise CorruptStream(f"chunk {number}: {coded} bytes for {size} before they were coded; the stream is damaged")
    return Record(tokens, size, int.from_bytes(reader.take(4), "little"), reader.take(coded))
