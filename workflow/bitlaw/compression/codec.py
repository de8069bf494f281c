"""Chunks to a self-describing byte stream and back; docs/format.md specifies it.

In exact arithmetic the intervals of the one-shot scoring pass are coded, and a decoder meets the same ones wherever
it runs and however it goes about it. Every other precision is coded in lock-step (see `lockstep`).
"""

import zlib

import numpy as np

from bitlaw import InputError
from bitlaw.compression import range_coder, top_bits
from bitlaw.compression.stream_format import EXACT, LARGEST_CHUNK, CorruptStream, Header, Record, pack, unpack
from bitlaw.data import escapes, seven_bit, tokens
from bitlaw.models import checkpoint
from bitlaw.models.exact.arithmetic import VERSION as ARITHMETIC


def header(model, weights, tokenizer, precision, chunks):
    """The header of a stream of `chunks` chunks made here with `model`; weights and tokenizer are their sha256."""
    if precision == EXACT:
        return Header(weights, tokenizer, precision, ARITHMETIC, None, model.given_context, model.prefix)
    from bitlaw.compression import lockstep  # imports torch, which exact arithmetic does without

    same = lockstep.same_calls(model, chunks)
    return Header(weights, tokenizer, precision, 0, same, model.given_context, model.prefix)


def encode_lockstep(model, header, chunks, ids):
    """Records of `chunks` (bytes) with token ids `ids`, made by the calls that the decoder will make."""
    from bitlaw.compression import lockstep

    intervals = lockstep.encode(model, ids, header.lockstep.batch)
    return [record(*pair) for pair in zip(chunks, intervals, strict=True)]


def record(data, intervals):
    """Record of the chunk `data` (bytes) from the (starts, frequencies, totals) of its tokens."""
    if len(data) > LARGEST_CHUNK:
        raise InputError(f"a chunk of {len(data)} bytes: a stream holds chunks of up to {LARGEST_CHUNK}")
    parts = zip(top_bits.intervals(seven_bit.top_bits(data)), intervals, strict=True)
    coded = range_coder.encode(*(np.concatenate(pair) for pair in parts))
    return Record(len(intervals[0]), len(data), zlib.crc32(data), coded)


def decode(model, spelling, header, records, threads=1, first=0):
    """Yield (chunk as bytes, its record coded anew from the intervals that decoding met) for each of `records`.

    `spelling` gives the bytes of each token; on `threads` threads in exact arithmetic, on the header's in lock-step.
    Raises CorruptStream for a chunk that does not pass its check; `first`: the number of the first chunk, for that.
    """
    opened = [range_coder.start_decoding(record.coded) for record in records]
    planes = [top_bits.decode(state, data, record.bytes) for (state, data), record in zip(opened, records, strict=True)]
    counts = [record.tokens for record in records]
    if header.lockstep is None:
        from bitlaw.compression import exact_decoder

        decoded = exact_decoder.decode(model, opened, counts, threads)
    else:
        from bitlaw.compression import lockstep

        decoded = lockstep.decode(model, opened, counts, header.lockstep.batch)
    escaped = escapes.table(spelling)
    for number, (given, plane, (ids, met)) in enumerate(zip(records, planes, decoded, strict=True), first):
        # a model may know more tokens than its tokenizer; only a damaged stream has them
        text = escapes.read(escaped, b"".join(spelling[token] or b"" for token in ids if token < len(spelling)))
        data = seven_bit.from_ascii(text, plane) if len(text) == given.bytes else None
        if data is None or zlib.crc32(data) != given.check:
            raise CorruptStream(f"chunk {number}: does not pass its check; the stream is damaged")
        yield data, record(data, met)


def restore(stream, folder, tokenizer, device="cpu", threads=1):
    """(bytes that `stream` was made from, the stream coded anew from the intervals that decoding met).

    Decoded with the checkpoint in `folder` and the file `tokenizer`; in exact arithmetic on the processor whatever the
    device, by compiled loops. Raises what `unpack` and `open_decoder` do.
    """
    found, records = unpack(stream)
    model, spelling = open_decoder(found, folder, tokenizer, device)
    decoded = list(decode(model, spelling, found, records, threads))
    return b"".join(data for data, _ in decoded), pack(found, [again for _, again in decoded])


def open_decoder(found, folder, tokenizer, device="cpu"):
    """(model, bytes of each token) for a stream with header `found`, from the checkpoint `folder` and file `tokenizer`.

    Raises InputError when these, or in lock-step this machine, are not what it was made with.
    """
    _, spelling, tokenizer_sha256 = tokens.open_tokenizer(tokenizer)
    check(found, checkpoint.describe(folder)["weights_sha256"], tokenizer_sha256)
    where = "cpu" if found.lockstep is None else device
    model = checkpoint.load(folder, found.precision, where, found.context, found.prefix)
    if found.lockstep is not None:
        from bitlaw.compression import lockstep

        lockstep.check(model, found.lockstep)
    return model, spelling


def check(found, weights, tokenizer):
    """Raise InputError when a stream with header `found` was made with other files or in another arithmetic.

    weights, tokenizer: hexadecimal sha256 of what is here.
    """
    for name, here, there in (("model", weights, found.weights), ("tokenizer", tokenizer, found.tokenizer)):
        if here != there:
            differ = next(i for i in range(len(here)) if here[i] != there[i]) // 16 * 16
            raise InputError(
                f"the stream was made with another {name} (sha256 from digit {differ + 1} on "
                f"{there[differ : differ + 16]}, here {here[differ : differ + 16]}): give the {name} it was made with"
            )
    if found.lockstep is None and found.arithmetic != ARITHMETIC:
        raise InputError(
            f"the stream was made in version {found.arithmetic} of the exact arithmetic; this program computes version "
            f"{ARITHMETIC}: decode it with the release that made it"
        )
