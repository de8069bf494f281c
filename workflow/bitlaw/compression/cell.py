"""One cell of a study: chunks, tokens and a checkpoint to a measured stream, its table and its provenance."""

import hashlib
import json
import logging
import multiprocessing
import os
import platform
import resource
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bitlaw import InputError
from bitlaw.compression import accounting, codec, exact_decoder, range_coder, scoring, stream_format, top_bits
from bitlaw.compression.stream_format import EXACT
from bitlaw.data import seven_bit, shards, tokens
from bitlaw.models import checkpoint
from bitlaw.runtime import compiling, gpu
from bitlaw.runtime.atomic import replacing, write_text

log = logging.getLogger("bitlaw")

THREADS = 2  # of the encoder; the decoder has one
START = {"cpu": "fork", "cuda": "spawn"}  # of the decoder; CUDA does not survive a fork


@dataclass(frozen=True)
class Inputs:
    """What a cell is made of.

    folder: of the checkpoint; tokenizer: its tokenizer.json; shard_folder, token_file: the chunks, and their tokens by
    that tokenizer. precision: of the stream; published: of the published protocol's pass, where that is another one.
    verify: how many chunks another process decodes and compares. tokens_at_a_time: of one floating-point pass.
    """

    folder: Path
    tokenizer: Path
    shard_folder: Path
    token_file: Path
    precision: str
    published: str
    device: str
    verify: int
    tokens_at_a_time: int


@dataclass(frozen=True)
class Loaded:
    """The inputs in memory: chunks (bytes), their files, token ids, bytes a token, escaped symbols, and the model."""

    chunks: list
    files: list
    ids: list
    token_bytes: list
    escaped: np.ndarray
    tokenizer_sha256: str
    about: dict
    model: object


@dataclass(frozen=True)
class Measured:
    """Scores of the lossless pass, code lengths of the published one, and the stream that holds every chunk."""

    scores: list
    published_lengths: list | None  # None: those of `scores`
    quantisation: dict
    header: stream_format.Header
    records: list
    seconds: dict


def compress(inputs, labels, out):
    """Score and code every chunk of `inputs`; write `out`.parquet and `out`.json; return the latter's content.

    The table has a row a chunk (see `accounting`); the json holds the cell's ratios and audit, provenance, speed and
    the decode check. `labels` (modality, model, step) are copied there. On "cuda" the cell has a GPU for itself, and as
    many tokens pass at a time as its memory allows. Raises InputError for inputs that do not belong together,
    DeviceError when the device fails, and RuntimeError when the stream does not decode to the same bytes: then nothing
    is written.
    """
    with (
        gpu.lease(inputs.device),
        ProcessPoolExecutor(1, multiprocessing.get_context(START[inputs.device]), _end_with_parent) as decoder,
        gpu.failures(inputs.device),
    ):
        gpu.check(inputs.device)
        compiling.ready()
        # now, while this process has computed nothing: the kernels' threads do not survive a fork
        decoder.submit(os.getpid).result()
        started = time.perf_counter()
        loaded = load(inputs)
        loading = time.perf_counter() - started
        measured = measure(inputs, loaded)
        check = verify(inputs, loaded, measured, decoder)
    rows = chunk_rows(inputs, loaded, measured)
    result = labels | describe(inputs, loaded, measured, rows, check)
    result["seconds_by_part"] = {"load": round(loading, 3), **result["seconds_by_part"]}
    result["seconds"] = round(sum(result["seconds_by_part"].values()), 3)
    out = Path(out)
    with replacing(out.with_name(out.name + ".parquet")) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    write_text(out.with_name(out.name + ".json"), json.dumps(result, indent=1) + "\n")
    return result


def _end_with_parent():
    """In the decoder: end when the cell's process does, even by kill -9, and give its memory back; not before it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both, and one of them has to say so
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def load(inputs):
    """Loaded from `inputs`; InputError where chunks, tokens and model do not belong together."""
    chunks = [bytes(row) for row in shards.read(inputs.shard_folder)]
    ids, token_bytes, tokenizer_sha256 = tokens.read(inputs.token_file)
    if len(ids) != len(chunks):
        raise InputError(
            f"{inputs.token_file}: {len(ids)} chunks, {inputs.shard_folder} has {len(chunks)}: remove it and run again"
        )
    about = checkpoint.describe(inputs.folder)
    model = checkpoint.load(inputs.folder, inputs.precision, inputs.device)
    checkpoint.check_vocabulary(model, ids, f"{inputs.token_file}: ")
    if checkpoint.is_exact(model):
        with compiling.one_at_a_time():
            _first_use(model)
    escaped = tokens.read_escaped(inputs.token_file)
    files = [origin["file"] for origin in shards.manifest(inputs.shard_folder)["chunks"]]
    return Loaded(chunks, files, ids, token_bytes, escaped, tokenizer_sha256, about, model)


def _first_use(model):
    """Code and decode two tokens, so that all loops are compiled."""
    ids = np.zeros(2, dtype=np.int64)
    (scores,) = scoring.score(model, [ids], None)
    coded = range_coder.encode(*scores[:3])
    exact_decoder.decode(model, [range_coder.start_decoding(coded)], [2])
    scoring.score_by_products(model, ids)


def measure(inputs, loaded):
    """Measured: one pass over all tokens, another for the published protocol where it has a precision of its own."""
    started = time.perf_counter()
    scores = scoring.score(loaded.model, loaded.ids, _tokens_at_a_time(inputs), THREADS)
    scored = time.perf_counter()
    published, quantisation = _published_pass(inputs, loaded, scores)
    published_at = time.perf_counter()
    header = _header(inputs, loaded, len(loaded.chunks))
    log.info("coding %s, %s of %d chunks", _mode(header), inputs.precision, len(loaded.chunks))
    records = [codec.record(data, own[:3]) for data, own in zip(loaded.chunks, scores, strict=True)]
    seconds = {
        "score": scored - started,
        "score_published": published_at - scored,
        "code": time.perf_counter() - published_at,
    }
    return Measured(scores, published, quantisation, header, records, seconds)


def _tokens_at_a_time(inputs):
    """On a GPU as many as it has room for."""
    return None if inputs.device == "cuda" else inputs.tokens_at_a_time


def _mode(header):
    return EXACT if header.lockstep is None else "lockstep"


def _header(inputs, loaded, count):
    weights = loaded.about["weights_sha256"]
    return codec.header(loaded.model, weights, loaded.tokenizer_sha256, inputs.precision, count)


def _published_pass(inputs, loaded, scores):
    """(-log2 p of each chunk's first 1024 tokens as the published study computes them, what the json says of it).

    (None, {}) where the pass of `scores` gives both numbers. In int8 one chunk passes at a time, as in the study: its
    outlier columns are picked over all that passes together, which no decoder could repeat.
    """
    if inputs.published == inputs.precision != "int8":
        return None, {}
    first = [own[: accounting.PUBLISHED_TOKENS] for own in loaded.ids]
    model = checkpoint.load_published(inputs.folder, inputs.published, inputs.device)
    at_a_time = 1 if inputs.published == "int8" else _tokens_at_a_time(inputs)
    lengths = [own.lengths for own in scoring.score(model, first, at_a_time, THREADS, "score as published")]
    apart = [np.abs(a[1:] - b.lengths[1 : len(a)]) for a, b in zip(lengths, scores, strict=True)]
    apart = np.concatenate([*apart, np.empty(0)])
    about = {"bits_apart_per_token": {"mean": float(apart.mean()), "max": float(apart.max())} if len(apart) else None}
    if inputs.published == "int8":
        from bitlaw.models import llm_int8

        about |= {"threshold_published": llm_int8.THRESHOLD, "outlier_columns": llm_int8.outlier_columns(model)}
    return lengths, {"quantisation": about}


def verify(inputs, loaded, measured, decoder):
    """Decode `inputs.verify` chunks in the process `decoder`; return what the json says of it.

    In exact arithmetic these are the records of the stream itself, decoded token by token; the first is made anew by
    the other engine, too. Elsewhere they are coded again by steps, and their size must be that of one pass within
    0.01 %. Raises RuntimeError when bytes, intervals or sizes differ.
    """
    started = time.perf_counter()
    numbers = np.unique(np.linspace(0, len(loaded.chunks) - 1, inputs.verify).round().astype(int))
    chunks, records, ids = ([of[i] for i in numbers] for of in (loaded.chunks, measured.records, loaded.ids))
    header, one_shot_bytes = measured.header, coded_bytes(records)
    if header.lockstep is not None:
        header = _header(inputs, loaded, len(numbers))
        records = codec.encode_lockstep(loaded.model, header, chunks, ids)
        _same_size(one_shot_bytes, coded_bytes(records), len(records))
    stream = stream_format.pack(header, records)
    if header.lockstep is None:
        intervals = decoder.submit(_by_products, inputs.folder, ids[0]).result()
        if not np.array_equal(intervals, measured.scores[numbers[0]][:3]):
            raise RuntimeError("decode check failed: the engines of exact arithmetic give different intervals")
    data, again = decoder.submit(codec.restore, stream, inputs.folder, inputs.tokenizer, inputs.device).result()
    if data != b"".join(chunks):
        raise RuntimeError("decode check failed: the stream decodes to other bytes")
    if again != stream:
        raise RuntimeError("decode check failed: the decoder met other intervals than the stream was made with")
    measured.seconds["verify"] = time.perf_counter() - started
    return {
        "chunks": len(numbers),
        "chunk_numbers": numbers.tolist(),
        "passed": True,
        "one_shot_bytes": one_shot_bytes,
        "steps_bytes": coded_bytes(records),
    }


def _by_products(folder, ids):
    """Intervals of a chunk's tokens by float64 matrix products: another library's sums, in another order."""
    return scoring.score_by_products(checkpoint.load(folder, EXACT), ids)[:3]


def _same_size(one_shot_bytes, steps_bytes, count):
    """Raise RuntimeError when coding by steps takes another size than one pass says: 0.01 % and a byte a chunk."""
    if abs(steps_bytes - one_shot_bytes) > max(1e-4 * one_shot_bytes, count):
        raise RuntimeError(
            f"lock-step coding takes {steps_bytes} bytes, one-shot scoring says {one_shot_bytes}: the model's two "
            "passes differ by more than 0.01 %; try precision fp32, or exact where the model's family has it"
        )


def coded_bytes(records):
    """Bytes of the coded strings of `records`."""
    return sum(len(record.coded) for record in records)


def chunk_rows(inputs, loaded, measured):
    """A dict for each chunk: its costs (see `accounting`) and escaped symbols."""
    fixed = 8 * len(stream_format.pack_header(measured.header, len(measured.records))) / len(measured.records)
    rows = []
    for number, (data, record, scores) in enumerate(zip(loaded.chunks, measured.records, measured.scores, strict=True)):
        published = measured.published_lengths and measured.published_lengths[number]
        top = top_bits.ideal_bits(seven_bit.top_bits(data))
        container = 8 * (len(stream_format.pack_record(record)) - len(record.coded)) + fixed
        rows.append(
            accounting.chunk_row(
                number,
                len(data),
                accounting.position_costs(scores, loaded.token_bytes[number]),
                accounting.published_costs(len(data), inputs.published, scores.lengths, published),
                accounting.audit_costs(scores),
                accounting.stream_costs(scores, top, 8 * len(record.coded), container),
                {
                    # what the model finds surprising, for one chunk to look at
                    "bits_by_token": accounting.ideal_bits(scores).astype(np.float32) if number == 0 else None,
                    "escaped_symbols": int(loaded.escaped[number]),
                    "file": loaded.files[number],  # where it begins; intervals are over files
                },
            )
        )
    return rows


def describe(inputs, loaded, measured, rows, check):
    """The cell's json: ratios and audit, provenance, speed, decode check."""
    stream = stream_format.pack(measured.header, measured.records)
    count = sum(map(len, loaded.ids))
    measuring = sum(measured.seconds[part] for part in ("score", "score_published", "code"))
    lockstep = measured.header.lockstep
    return {
        **accounting.cell(rows),
        **loaded.about,
        "origin": checkpoint.origin(inputs.folder),
        "tokenizer_sha256": loaded.tokenizer_sha256,
        "shards": shards.manifest(inputs.shard_folder)["shards"],
        "precision": inputs.precision,
        "precision_published": inputs.published,
        "compute": checkpoint.compute(inputs.precision, inputs.device),
        **measured.quantisation,
        "mode": _mode(measured.header),
        "stream_bits": 8 * len(stream),
        "stream_sha256": hashlib.sha256(stream).hexdigest(),
        "tokens": count,
        "escaped_symbols": int(loaded.escaped.sum()),
        "seconds_by_part": {part: round(seconds, 3) for part, seconds in measured.seconds.items()},
        "bytes_per_second": round(sum(map(len, loaded.chunks)) / measuring, 1),
        "tokens_per_second": round(count / measuring, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **gpu.peak_memory(inputs.device),
        "decode_check": check,
        "device": inputs.device,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "kernels": None if lockstep is None else lockstep.machine,
            "threads": THREADS,
        },
        "versions": {name: version(name) for name in _libraries(inputs)} | {"python": platform.python_version()},
    }


def _libraries(inputs):
    """Packages whose versions a cell's numbers may depend on."""
    names = ["numpy", "numba", "tokenizers", "safetensors"]
    if {inputs.precision, inputs.published} != {EXACT}:
        names.append("torch")
    if "int8" in (inputs.precision, inputs.published):
        names.append("bitsandbytes")
    return names
