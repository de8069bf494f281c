"""Files of any length to streams and back, a group of chunks at a time: memory does not grow with the file."""

import hashlib
import logging
import shutil
import tempfile
from typing import NamedTuple

from bitlaw.compression import codec, known_answers, scoring, stream_format
from bitlaw.compression.stream_format import CorruptStream
from bitlaw.data import seven_bit, tokens
from bitlaw.models import checkpoint

log = logging.getLogger("bitlaw")

GROUP_BYTES = 1 << 20  # of chunks that are scored or decoded together
MOST_RECORDS = 4096
GROUP_CHUNKS = 8  # a group that is coded holds a multiple of these, as in lock-step as many advance together


class Coder(NamedTuple):
    """A model and its tokenizer, ready to code at `precision`; hashes are hexadecimal sha256."""

    model: object
    tokenizer: object
    spelling: list
    precision: str
    weights: str
    tokenizer_sha256: str


class Coded(NamedTuple):
    """What `compress` read and wrote: bytes, sha256 of what it read, bytes of the stream."""

    size: int
    sha256: str
    stream: int


def open_coder(folder, tokenizer, precision, device="cpu", threads=1):
    """Coder of the checkpoint in `folder` and the file `tokenizer`; InputError for what cannot be loaded.

    In every precision but exact the number of torch's threads, which the stream then names, is set to `threads`.
    """
    opened, spelling, tokenizer_sha256 = tokens.open_tokenizer(tokenizer)
    known_answers.check_device(device, precision)
    model = checkpoint.load(folder, precision, device, prefix=tokens.prefix(tokenizer, tokens.AUTO))
    if precision != stream_format.EXACT:
        import torch

        torch.set_num_threads(threads)
    weights = checkpoint.describe(folder)["weights_sha256"]
    return Coder(model, opened, spelling, precision, weights, tokenizer_sha256)


def compress(source, sink, scratch, coder, chunk_bytes, threads=1, report=lambda done: None):
    """Code the binary file `source` to its end, `chunk_bytes` a chunk, to the binary file `sink`; returns Coded.

    The header names the number of chunks, which is known at the end: records wait in a nameless file in the folder
    `scratch` (None: that of the system), which takes as much room as the stream. `report` is told how many bytes are
    coded. Raises InputError for bytes that the tokenizer does not give back.
    """
    header, count, size, digest = None, 0, 0, hashlib.sha256()
    with tempfile.TemporaryFile(dir=scratch) as waiting:
        while chunks := _read_chunks(source, chunk_bytes):
            header = header or _header(coder, len(chunks))
            for record in _records(coder, header, chunks, count, threads):
                waiting.write(stream_format.pack_record(record))
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
            count += len(chunks)
            report(size)
        sink.write(fixed := stream_format.pack_header(header or _header(coder, 0), count))
        stream = len(fixed) + waiting.tell()
        waiting.seek(0)
        shutil.copyfileobj(waiting, sink)
    sink.flush()
    return Coded(size, digest.hexdigest(), stream)


def _read_chunks(source, chunk_bytes):
    """The next group of chunks; fewer bytes and chunks only at the end of `source`."""
    count = max(1, GROUP_BYTES // (GROUP_CHUNKS * chunk_bytes)) * GROUP_CHUNKS
    data = source.read(count * chunk_bytes)
    return [data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes)]


def _header(coder, chunks):
    return codec.header(coder.model, coder.weights, coder.tokenizer_sha256, coder.precision, chunks)


def _records(coder, header, chunks, first, threads):
    """Records of a group of chunks, of which the first has the number `first`."""
    texts = [seven_bit.to_ascii(chunk) for chunk in chunks]
    ids, repaired = tokens.encode_counted(coder.tokenizer, coder.spelling, texts, first)
    if any(repaired):
        log.warning(
            "from chunk %d on the tokenizer does not give %d of %d bytes back: spelt by the longest tokens that match",
            first,
            sum(repaired),
            sum(map(len, chunks)),
        )
    checkpoint.check_vocabulary(coder.model, ids, "the tokenizer gives ")
    if header.lockstep is not None:
        return codec.encode_lockstep(coder.model, header, chunks, ids)
    scores = scoring.score(coder.model, ids, None, threads)
    return [codec.record(chunk, own[:3]) for chunk, own in zip(chunks, scores, strict=True)]


def decompress(source, folder, tokenizer, device="cpu", threads=1, report=lambda done, count: None):
    """Yield the bytes that the stream in the binary file `source` was made from, chunk by chunk.

    They are all right only if the end is reached: CorruptStream may come at any chunk, and behind the last one when the
    stream goes on. `report` is told how many chunks are decoded, of how many. Raises what `stream_format.read` and
    `codec.open_decoder` do.
    """
    header, count, records = stream_format.read(source)
    model, spelling = codec.open_decoder(header, folder, tokenizer, device)
    yield from _decode(model, spelling, header, count, records, threads, report)


def check(source, coder, coded, threads=1, report=lambda done, count: None):
    """Decode the stream in the binary file `source` with the Coder that made it; CorruptStream unless it gives back
    what `compress` read, as `coded` says."""
    header, count, records = stream_format.read(source)
    digest = hashlib.sha256()
    for data in _decode(coder.model, coder.spelling, header, count, records, threads, report):
        digest.update(data)
    if digest.hexdigest() != coded.sha256:
        raise CorruptStream(
            "the stream does not decode to the bytes it was made from; nothing was written, report this"
        )


def _decode(model, spelling, header, count, records, threads, report):
    done = 0
    for group in _groups(records, header.lockstep.batch if header.lockstep else 1):
        for data, _ in codec.decode(model, spelling, header, group, threads, done):
            yield data
        done += len(group)
        report(done, count)


def _groups(records, batch):
    """Lists of `records`, a multiple of `batch` each but for the last, that stand for about GROUP_BYTES."""
    group, size = [], 0
    for record in records:
        group.append(record)
        size += record.bytes
        if (size >= GROUP_BYTES or len(group) >= MOST_RECORDS) and len(group) % batch == 0:
            yield group
            group, size = [], 0
    if group:
        yield group
