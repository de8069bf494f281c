"""One cell of a study: chunks, tokens and a checkpoint to a measured stream, its table and its provenance."""

import hashlib
import importlib
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
from bitlaw.compression import (
    accounting,
    codec,
    exact_decoder,
    known_answers,
    range_coder,
    scoring,
    stream_format,
    top_bits,
)
from bitlaw.compression.stream_format import EXACT
from bitlaw.data import seven_bit, shards, tokens
from bitlaw.models import checkpoint
from bitlaw.runtime import compiling, cuda, gpu
from bitlaw.runtime.atomic import replacing, write_text

log = logging.getLogger("bitlaw")

THREADS = 2  # of the encoder; the decoder has one
# bits that a token's code length by steps may lie from that of one pass, in the mean, as each precision rounds
MOST_APART = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.3, "int8": 0.3}
START = {"cpu": "fork", "cuda": "spawn"}  # of the decoder; CUDA does not survive a fork


@dataclass(frozen=True)
class Inputs:
    """What a cell is made of.

    folder: of the checkpoint; tokenizer: its tokenizer.json; shard_folder, token_file: the chunks, and their tokens by
    that tokenizer. precision: of the stream; published: of the published protocol's pass, where that is another one.
    verify: how many chunks another process decodes and compares. tokens_at_a_time: of one floating-point pass. context:
    positions of a window, where another number than config.json's is wanted. bos: the token in front of every window
    of the lossless pass, "auto", "none" or an id (see `tokens.prefix`).
    threads: of the encoder.
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
    context: int | None = None
    bos: str | int = tokens.AUTO
    threads: int = THREADS


@dataclass
class Loaded:
    """The inputs in memory: chunks (bytes), their files, token ids, bytes a token, escaped symbols and repaired bytes,
    and the model, with its context and prefix."""

    chunks: list
    files: list
    ids: list
    token_bytes: list
    escaped: np.ndarray
    repaired: np.ndarray
    tokenizer_sha256: str
    about: dict
    model: object | None  # None when it has done its work and its memory is given back
    context: int
    prefix: int | None


@dataclass(frozen=True)
class Measured:
    """Scores of the lossless pass, code lengths of the published one, and the stream that holds every chunk."""

    scores: list
    plain_lengths: list  # -log2 p of the tokens in the same arithmetic without a prefix
    published_lengths: list | None  # None: those
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
    if inputs.device != "cpu":
        import torch  # noqa: F401  which takes seconds, while another cell has the GPU
    with (
        gpu.lease(inputs.device) as end_lease,
        ProcessPoolExecutor(1, multiprocessing.get_context(START[inputs.device]), _end_with_parent) as decoder,
        gpu.failures(inputs.device),
    ):
        cuda.check(inputs.device)
        compiling.ready()
        # now, while this process has computed nothing: the kernels' threads do not survive a fork
        decoder.submit(os.getpid).result()
        if inputs.device != "cpu" and inputs.precision != EXACT:
            decoder.submit(importlib.import_module, "bitlaw.compression.lockstep")  # torch, while this process scores
        started = time.perf_counter()
        loaded = load(inputs)
        loading = time.perf_counter() - started
        measured = measure(inputs, loaded)
        check = verify(inputs, loaded, measured, decoder, end_lease)
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
    """In the decoder: end when the cell's process does, even by kill -9, giving its memory back; at Ctrl-C at once."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
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
    known_answers.check_device(inputs.device, inputs.precision, inputs.published)
    prefix = tokens.prefix(inputs.tokenizer, inputs.bos)
    model = checkpoint.load(inputs.folder, inputs.precision, inputs.device, inputs.context, prefix)
    checkpoint.check_vocabulary(model, ids, f"{inputs.token_file}: ")
    if checkpoint.is_compiled(model):
        with compiling.one_at_a_time():
            _first_use(model)
    escaped, repaired = tokens.read_escaped(inputs.token_file), tokens.read_repaired(inputs.token_file)
    files = [origin["file"] for origin in shards.manifest(inputs.shard_folder)["chunks"]]
    cut = chunks, files, ids, token_bytes, escaped, repaired
    return Loaded(*cut, tokenizer_sha256, about, model, model.context, model.prefix)


def _first_use(model):
    """Code and decode two tokens, so that all loops are compiled."""
    ids = np.zeros(2, dtype=np.int64)
    (scores,) = scoring.score(model, [ids], None)
    coded = range_coder.encode(*scores[:3])
    exact_decoder.decode(model, [range_coder.start_decoding(coded)], [2])
    scoring.score_by_products(model, ids)


def measure(inputs, loaded):
    """Measured: one pass over all tokens, others for the published protocol where it has a precision of its own, and
    for the audit where a prefix stands in front, which the published protocol never has."""
    started = time.perf_counter()
    scores = scoring.score(loaded.model, loaded.ids, _tokens_at_a_time(inputs), inputs.threads)
    scored = time.perf_counter()
    plain = [own.lengths for own in scores]
    if loaded.model.prefix is not None:
        bare = scoring.without_prefix(loaded.model)
        plain = scoring.code_lengths(
            bare, loaded.ids, _tokens_at_a_time(inputs), inputs.threads, "score without prefix"
        )
    published, quantisation = _published_pass(inputs, loaded, plain)
    published_at = time.perf_counter()
    header = _header(inputs, loaded, len(loaded.chunks))
    log.info("coding %s, %s of %d chunks", _mode(header), inputs.precision, len(loaded.chunks))
    records = [codec.record(data, own[:3]) for data, own in zip(loaded.chunks, scores, strict=True)]
    seconds = {
        "score": scored - started,
        "score_published": published_at - scored,
        "code": time.perf_counter() - published_at,
    }
    return Measured(scores, plain, published, quantisation, header, records, seconds)


def _tokens_at_a_time(inputs):
    """On a GPU as many as it has room for."""
    return None if inputs.device == "cuda" else inputs.tokens_at_a_time


def _mode(header):
    return EXACT if header.lockstep is None else "lockstep"


def _header(inputs, loaded, count):
    weights = loaded.about["weights_sha256"]
    return codec.header(loaded.model, weights, loaded.tokenizer_sha256, inputs.precision, count)


def _published_pass(inputs, loaded, plain):
    """(-log2 p of each chunk's first 1024 tokens as the published study computes them, what the json says of it).

    (None, {}) where the pass of `plain` gives both numbers. In int8 the outlier columns of a chunk are picked over all
    of its tokens, as in the study, where one chunk passes at a time; no decoder could repeat that.
    """
    if inputs.published == inputs.precision != "int8":
        return None, {}
    first = [own[: accounting.PUBLISHED_TOKENS] for own in loaded.ids]
    same = loaded.model if inputs.published == inputs.precision else None
    model = checkpoint.load_published(inputs.folder, inputs.published, inputs.device, inputs.context, same)
    at_a_time = _tokens_at_a_time(inputs)
    lengths = scoring.code_lengths(model, first, at_a_time, inputs.threads, "score as published")
    about = {"bits_apart_per_token": _apart(lengths, plain)}
    if inputs.published == "int8":
        from bitlaw.models import llm_int8

        about |= {"threshold_published": llm_int8.THRESHOLD, "outlier_columns": llm_int8.outlier_columns(model)}
    return lengths, {"quantisation": about}


def _apart(lengths, others):
    """{mean, max} of how many bits code lengths of tokens lie apart; None where there is none to compare.

    Two lists of float64 arrays, one a chunk, the first of which may be shorter; first tokens do not count.
    """
    apart = [np.abs(a[1:] - b[1 : len(a)]) for a, b in zip(lengths, others, strict=True)]
    apart = np.concatenate([*apart, np.empty(0)])
    return {"mean": float(apart.mean()), "max": float(apart.max())} if len(apart) else None


def verify(inputs, loaded, measured, decoder, end_lease=lambda: None):
    """Decode `inputs.verify` chunks in the process `decoder`; return what the json says of it.

    In exact arithmetic these are the records of the stream itself, decoded token by token; the first is made anew by
    the other engine, too. A processor does that: `end_lease` is called, as another cell may have the GPU meanwhile.
    Elsewhere they are coded again by steps: each token must cost about what one pass says, and all together the same
    within 0.01 %. Raises RuntimeError when bytes, intervals or code lengths differ.
    """
    started = time.perf_counter()
    numbers = np.unique(np.linspace(0, len(loaded.chunks) - 1, inputs.verify).round().astype(int))
    chunks, records, ids = ([of[i] for i in numbers] for of in (loaded.chunks, measured.records, loaded.ids))
    header, one_shot_bytes, about = measured.header, coded_bytes(records), {}
    if header.lockstep is not None:
        header, intervals = _by_steps(inputs, loaded, ids)
        about["bits_apart_per_token"] = _same_lengths(inputs, [measured.scores[i] for i in numbers], intervals)
        records = [codec.record(*pair) for pair in zip(chunks, intervals, strict=True)]
        _same_size(one_shot_bytes, coded_bytes(records), len(records))
    loaded.model = None
    cuda.give_back_memory(inputs.device)  # the decoder loads the same model
    stream = stream_format.pack(header, records)
    if header.lockstep is None:
        end_lease()
        intervals = decoder.submit(_by_products, inputs.folder, header.context, header.prefix, ids[0]).result()
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
        **about,
    }


def _by_steps(inputs, loaded, ids):
    """(header, intervals) of chunks of token ids coded in lock-step, as many together as the device has memory for."""
    import torch

    from bitlaw.compression import lockstep

    together = min(lockstep.BATCH, len(ids))
    while together:
        try:
            header = _header(inputs, loaded, together)
            return header, lockstep.encode(loaded.model, ids, header.lockstep.batch)
        except torch.OutOfMemoryError:
            log.info("out of memory at %d chunks at a time: trying %d", together, together // 2)
        together //= 2
        cuda.give_back_memory(inputs.device)
    raise InputError(
        f"{inputs.device}: one chunk by steps does not fit in its memory; end what else runs there, or choose another "
        "device or model"
    )


def _by_products(folder, context, prefix, ids):
    """Intervals of a chunk's tokens by float64 matrix products: another library's sums, in another order."""
    model = checkpoint.load(folder, EXACT, context=context, prefix=prefix)
    return scoring.score_by_products(model, ids)[:3]


def _same_lengths(inputs, scores, intervals):
    """How far code lengths by steps lie from those of one pass (see `_apart`).

    Raises RuntimeError when they are further apart than rounding takes them: then a token sees something else in a
    step than in one pass, which totals may hide.
    """
    steps = [np.log2(totals.astype(np.float64)) - np.log2(f.astype(np.float64)) for _, f, totals in intervals]
    apart = _apart(steps, [accounting.ideal_bits(own) for own in scores])
    if apart and not apart["mean"] <= MOST_APART[inputs.precision]:
        raise RuntimeError(
            f"decode check failed: by steps a token costs {apart['mean']:.3g} bits more or less than one pass says "
            f"(mean; at most {apart['max']:.3g}): {inputs.folder} sees other tokens in one pass than a decoder has"
        )
    return apart


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
    """A dict for each chunk: its costs (see `accounting`), escaped symbols and repaired bytes."""
    fixed = 8 * len(stream_format.pack_header(measured.header, len(measured.records))) / len(measured.records)
    rows = []
    for number, (data, record, scores) in enumerate(zip(loaded.chunks, measured.records, measured.scores, strict=True)):
        published = measured.published_lengths and measured.published_lengths[number]
        plain = measured.plain_lengths[number]
        top = top_bits.ideal_bits(seven_bit.top_bits(data))
        container = 8 * (len(stream_format.pack_record(record)) - len(record.coded)) + fixed
        rows.append(
            accounting.chunk_row(
                number,
                len(data),
                accounting.position_costs(scores, loaded.token_bytes[number]),
                accounting.published_costs(len(data), inputs.published, plain, published),
                accounting.audit_costs(scores, plain),
                accounting.stream_costs(scores, top, 8 * len(record.coded), container),
                {
                    # what the model finds surprising, for one chunk to look at
                    "bits_by_token": accounting.ideal_bits(scores).astype(np.float32) if number == 0 else None,
                    "escaped_symbols": int(loaded.escaped[number]),
                    "repaired_bytes": int(loaded.repaired[number]),
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
        "window": {"tokens": loaded.context, "advance": loaded.context // 2},
        "stream_bits": 8 * len(stream),
        "stream_sha256": hashlib.sha256(stream).hexdigest(),
        "tokens": count,
        "escaped_symbols": int(loaded.escaped.sum()),
        "repaired_bytes": int(loaded.repaired.sum()),
        "context": loaded.context,
        "bos": loaded.prefix,
        "seconds_by_part": {part: round(seconds, 3) for part, seconds in measured.seconds.items()},
        "bytes_per_second": round(sum(map(len, loaded.chunks)) / measuring, 1),
        "tokens_per_second": round(count / measuring, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **cuda.peak_memory(inputs.device),
        "decode_check": check,
        "device": inputs.device,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "kernels": None if lockstep is None else lockstep.machine,
            "threads": inputs.threads,
            "gpu": cuda.about(inputs.device),
            "floating_point": cuda.arithmetic(inputs.device),
        },
        "versions": {name: version(name) for name in _libraries(inputs)} | {"python": platform.python_version()},
    }


def _libraries(inputs):
    """Packages whose versions a cell's numbers may depend on."""
    names = ["numpy", "numba", "tokenizers", "safetensors"]
    if {inputs.precision, inputs.published} != {EXACT} or inputs.device != "cpu":
        names.append("torch")
    if "int8" in (inputs.precision, inputs.published):
        names.append("bitsandbytes")
    return names
