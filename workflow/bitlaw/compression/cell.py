"""One cell of a study: chunks, tokens and a checkpoint to a measured stream, its table and its provenance."""

import hashlib
import json
import logging
import multiprocessing
import os
import platform
import resource
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bitlaw import InputError
from bitlaw.compression import accounting, codec, scoring, top_bits
from bitlaw.data import seven_bit, shards, tokens
from bitlaw.models import checkpoint
from bitlaw.runtime import gpu, gpu_memory
from bitlaw.runtime.atomic import replacing, write_text

log = logging.getLogger("bitlaw")

THREADS = 2
DECODE_THREADS = 1  # another number than the encoder's, and the better one for a step's many small products
START = {"cpu": "fork", "cuda": "spawn"}  # of the decoder; CUDA does not survive a fork


def compress(folder, tokenizer, shard_folder, token_file, out, *, labels, precision, device, verify, tokens_at_a_time):
    """Score and code every chunk with the checkpoint in `folder`; write `out`.parquet and `out`.json.

    The table has a row a chunk (see `accounting.chunk_row`); the json holds the cell's ratios and audit, provenance,
    speed and the decode check of `verify` chunks. `labels` (modality, model, step) are
    copied there. On "cuda" the cell has a GPU for itself, and as many tokens pass at a time as its memory allows.
    Raises InputError for inputs that do not belong together, DeviceError when the device fails, and
    RuntimeError when the stream does not decode to the same bytes: then nothing is written.
    """
    with (
        gpu.lease(device),
        ProcessPoolExecutor(1, multiprocessing.get_context(START[device]), _end_with_parent) as decoder,
        gpu.failures(device),
    ):
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"config: device: 'cuda' given, but torch {torch.__version__} cannot use the GPU here; "
                "install a build of torch for its driver or choose cpu"
            )
        # now, while this process has computed nothing: the kernels' threads do not survive a fork
        decoder.submit(torch.set_num_threads, DECODE_THREADS).result()
        torch.set_num_threads(THREADS)
        rows, provenance = _compress(
            folder, tokenizer, shard_folder, token_file, precision, device, verify, tokens_at_a_time, decoder
        )
    provenance = {**labels, **provenance}
    out = Path(out)
    with replacing(out.with_name(out.name + ".parquet")) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    write_text(out.with_name(out.name + ".json"), json.dumps(provenance, indent=1) + "\n")
    return provenance


def _end_with_parent():
    """In the decoder: end when the cell's process does, even by kill -9, and give its memory back."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _compress(folder, tokenizer, shard_folder, token_file, precision, device, verify, tokens_at_a_time, decoder):
    started = time.perf_counter()
    chunks = [bytes(row) for row in shards.read(shard_folder)]
    ids, token_bytes, tokenizer_sha256 = tokens.read(token_file)
    escaped = tokens.read_escaped(token_file)
    if len(ids) != len(chunks):
        raise InputError(f"{token_file}: {len(ids)} chunks, {shard_folder} has {len(chunks)}: remove it and run again")
    about = checkpoint.describe(folder)
    model = checkpoint.load(folder, precision, device)
    checkpoint.check_vocabulary(model, ids, f"{token_file}: ")
    header = codec.header(model, about["weights_sha256"], tokenizer_sha256, precision)
    log.info("coding %s, %s of %d chunks", header.mode, precision, len(chunks))

    loaded = time.perf_counter()
    if device == "cuda":
        tokens_at_a_time = gpu_memory.tokens_at_a_time(model, min(model.context, max(map(len, ids))))
    scores = scoring.score(model, ids, tokens_at_a_time)
    study_lengths, quantisation = _study(model, ids, scores) if precision == "int8" else ([None] * len(ids), {})
    scored = time.perf_counter()
    records = codec.encode(chunks, scores)
    coded = time.perf_counter()
    fixed = 8 * len(codec.pack_header(header, len(records))) / len(records)
    rows = []
    for number, (data, record) in enumerate(zip(chunks, records, strict=True)):
        scored_chunk, bits = scores[number], top_bits.ideal_bits(seven_bit.top_bits(data))
        overhead = 8 * (len(codec.pack_record(record)) - len(record.coded)) + fixed
        rows.append(
            accounting.chunk_row(
                number,
                len(data),
                accounting.position_costs(scored_chunk, token_bytes[number]),
                accounting.published_costs(len(data), precision, scored_chunk.lengths, study_lengths[number]),
                accounting.audit_costs(scored_chunk),
                accounting.stream_costs(scored_chunk, bits, 8 * len(record.coded), overhead),
            )
            # what the model finds surprising, for one chunk to look at
            | {"bits_by_token": accounting.ideal_bits(scored_chunk).astype(np.float32) if number == 0 else None}
            | {"escaped_symbols": int(escaped[number])}
        )
    stream = codec.pack(header, records)
    result = accounting.cell(rows)
    spread = np.unique(np.linspace(0, len(chunks) - 1, verify).round().astype(int))
    verified_chunks, verified_records, verified_ids = ([of[i] for i in spread] for of in (chunks, records, ids))
    one_shot_bytes = coded_bytes(verified_records)
    if header.mode == "lockstep":
        verified_records = lockstep_records(model, verified_chunks, verified_records, verified_ids)
    verified_stream = codec.pack(header, verified_records)
    decoded, lockstep_bytes = decoder.submit(restored, verified_stream, folder, tokenizer, device).result()
    if decoded != b"".join(verified_chunks):
        raise RuntimeError("decode check failed: the stream decodes to other bytes")
    if lockstep_bytes != coded_bytes(verified_records):
        raise RuntimeError("decode check failed: the decoder met other intervals than the stream was made with")
    verified = time.perf_counter()
    on_gpu = {"peak_device_memory_bytes": torch.cuda.max_memory_allocated()} if device == "cuda" else {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = verified - started
    return rows, {
        **result,
        **about,
        "origin": checkpoint.origin(folder),
        "tokenizer_sha256": tokenizer_sha256,
        "shards": json.loads((Path(shard_folder) / "manifest.json").read_text())["shards"],
        "precision": precision,
        "compute": checkpoint.compute(precision, device),
        **quantisation,
        "mode": header.mode,
        "stream_bits": 8 * len(stream),
        "stream_sha256": hashlib.sha256(stream).hexdigest(),
        "tokens": int(sum(map(len, ids))),
        "escaped_symbols": int(escaped.sum()),
        "seconds": round(seconds, 3),
        "seconds_by_part": {
            "load": round(loaded - started, 3),
            "score": round(scored - loaded, 3),
            "code": round(coded - scored, 3),
            "verify": round(verified - coded, 3),
        },
        "bytes_per_second": round(sum(map(len, chunks)) / (coded - loaded), 1),
        "tokens_per_second": round(sum(map(len, ids)) / (coded - loaded), 1),
        "peak_memory_bytes": peak,
        **on_gpu,
        "decode_check": {
            "chunks": len(spread),
            "chunk_numbers": spread.tolist(),
            "passed": True,
            "threads": DECODE_THREADS,
            "batch": header.batch or min(codec.DECODE_BATCH, len(spread)),
            "one_shot_bytes": one_shot_bytes,
            "lockstep_bytes": lockstep_bytes,
        },
        "device": device,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "instructions": header.instructions,
            "threads": THREADS,
        },
        "versions": {
            name: version(name)
            for name in ("torch", "numpy", "numba", "tokenizers", "safetensors")
            + (("bitsandbytes",) if precision == "int8" else ())
        }
        | {"python": platform.python_version()},
    }


def _study(model, ids, scores):
    """The published study's pass of an int8 cell: (-log2 p of each chunk's first 1024 tokens, what the json says).

    One chunk at a time, as there: outlier columns are picked over all that passes together. `model` and `scores` are
    the causal ones, from which the difference is told.
    """
    from bitlaw.models import llm_int8

    study = llm_int8.at_threshold(model, llm_int8.THRESHOLD)
    first = [i[: accounting.PUBLISHED_TOKENS] for i in ids]
    found = [s.lengths for s in scoring.score(study, first, 1, "score as published")]
    apart = np.concatenate([np.abs(a[1:] - b.lengths[1 : len(a)]) for a, b in zip(found, scores, strict=True)])
    return found, {
        "quantisation": {
            "threshold_published": llm_int8.THRESHOLD,
            "threshold_lossless": 0.0,
            "bits_apart_per_token": {"mean": float(apart.mean()), "max": float(apart.max())} if len(apart) else None,
            "outlier_columns": llm_int8.outlier_columns(study),
        }
    }


def coded_bytes(records):
    """Bytes of the coded strings of `records`."""
    return sum(len(record.coded) for record in records)


def restored(stream, folder, tokenizer, device):
    """(bytes that `stream` decodes to, bytes of its strings coded anew from the intervals that decoding met)."""
    again = []
    return codec.restore(stream, folder, tokenizer, device, again), coded_bytes(again)


def lockstep_records(model, chunks, records, ids):
    """The chunks coded by steps, as a decoder can read them; RuntimeError when their size is not that of one pass.

    0.01 % and a byte a chunk are allowed between the one-shot `records` and those.
    """
    by_steps = codec.encode_lockstep(model, chunks, ids)
    one_shot_bytes, lockstep_bytes = coded_bytes(records), coded_bytes(by_steps)
    if abs(lockstep_bytes - one_shot_bytes) > max(1e-4 * one_shot_bytes, len(records)):
        raise RuntimeError(
            f"lock-step coding takes {lockstep_bytes} bytes, one-shot scoring says {one_shot_bytes}: the model's two "
            "passes differ by more than 0.01 %; try precision fp32"
        )
    return by_steps
