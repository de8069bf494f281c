"""One cell of a study: chunks, tokens and a checkpoint to a measured stream, its table and its provenance."""

import hashlib
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bitlaw import InputError, accounting, ascii, checkpoints, codec, plane, scoring, shards, tokens
from bitlaw.atomic import replacing

log = logging.getLogger("bitlaw")


def compress(folder, tokenizer, shard_folder, token_file, out, *, labels, precision, device, verify, tokens_at_a_time):
    """Score and code every chunk with the checkpoint in `folder`; write `out`.parquet and `out`.json.

    The table has a row a chunk (see `accounting.chunk_row`); the json holds the cell's ratios and audit, provenance,
    speed and the decode check of `verify` chunks. `labels` (modality, model, step) are
    copied there. Raises InputError for inputs that do not belong together, and
    RuntimeError when the stream does not decode to the same bytes: then nothing is written.
    """
    threads = 2  # the decode check runs on another number: one, which suits its many small products
    torch.set_num_threads(threads)
    started = time.perf_counter()
    chunks = [bytes(row) for row in shards.read(shard_folder)]
    ids, token_bytes, tokenizer_sha256 = tokens.read(token_file)
    if len(ids) != len(chunks):
        raise InputError(f"{token_file}: {len(ids)} chunks, {shard_folder} has {len(chunks)}: remove it and run again")
    about = checkpoints.describe(folder)
    model = checkpoints.load(folder, precision, device)
    largest = max((int(i.max()) for i in ids if len(i)), default=0)
    if largest >= model.vocabulary:
        raise InputError(
            f"{token_file}: token {largest}, but {folder} knows {model.vocabulary}: give its own tokenizer"
        )
    header = codec.header(model, about["weights_sha256"], tokenizer_sha256, precision)
    log.info("coding %s, %s of %d chunks", header.mode, precision, len(chunks))

    loaded = time.perf_counter()
    scores = scoring.score(model, ids, tokens_at_a_time)
    scored = time.perf_counter()
    records = codec.encode(chunks, scores)
    coded = time.perf_counter()
    fixed = 8 * len(codec.pack_header(header, len(records))) / len(records)
    rows = []
    for number, (data, record) in enumerate(zip(chunks, records, strict=True)):
        _, frequencies, totals = plane.intervals(ascii.top_bits(data))
        plane_bits = float(np.sum(np.log2(totals / frequencies)))
        overhead = 8 * (len(codec.pack_record(record)) - len(record.coded)) + fixed
        rows.append(
            accounting.chunk_row(
                number,
                len(data),
                token_bytes[number],
                scores[number],
                8 * len(record.coded),
                overhead,
                plane_bits,
                precision,
            )
        )
    stream = codec.pack(header, records)
    result = accounting.cell(rows)
    spread = np.unique(np.linspace(0, len(chunks) - 1, verify).round().astype(int))
    check = decode_check(
        model,
        header,
        folder,
        tokenizer,
        [chunks[i] for i in spread],
        [records[i] for i in spread],
        [ids[i] for i in spread],
        precision,
        threads,
    )
    verified = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = verified - started
    provenance = {
        **labels,
        **result,
        **about,
        "tokenizer_sha256": tokenizer_sha256,
        "shards": json.loads((Path(shard_folder) / "manifest.json").read_text())["shards"],
        "precision": precision,
        "mode": header.mode,
        "stream_bits": 8 * len(stream),
        "stream_sha256": hashlib.sha256(stream).hexdigest(),
        "tokens": int(sum(map(len, ids))),
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
        "decode_check": {**check, "chunk_numbers": spread.tolist()},
        "device": device,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "instructions": header.instructions,
            "threads": threads,
        },
        "versions": {name: version(name) for name in ("torch", "numpy", "numba", "tokenizers", "safetensors")}
        | {"python": platform.python_version()},
    }
    out = Path(out)
    with replacing(out.with_name(out.name + ".parquet")) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    with replacing(out.with_name(out.name + ".json")) as temporary:
        temporary.write_text(json.dumps(provenance, indent=1) + "\n")
    return provenance


def decode_check(model, header, folder, tokenizer, chunks, records, ids, precision, threads):
    """Decode `records` in a fresh process and compare with `chunks`; returns what was done, or raises RuntimeError.

    On the invariant path the other process uses another batch size and thread count. In lock-step the chunks are
    coded again by steps, and their size must agree with the one-shot records within 0.01 %.
    """
    sizes = {}
    if header.mode == "lockstep":
        one_shot = sum(len(r.coded) for r in records)
        records = codec.encode_lockstep(model, chunks, ids)
        by_steps = sum(len(r.coded) for r in records)
        sizes = {"one_shot_bytes": one_shot, "lockstep_bytes": by_steps}
        if abs(by_steps - one_shot) > max(1e-4 * one_shot, len(records)):
            raise RuntimeError(
                f"lock-step coding takes {by_steps} bytes, one-shot scoring says {one_shot}: the model's two passes "
                "differ by more than 0.01 %; try precision fp32"
            )
        other_threads = threads
    else:
        other_threads = 1
    with tempfile.TemporaryDirectory() as scratch:
        stream, back = Path(scratch) / "chunks.blaw", Path(scratch) / "chunks"
        stream.write_bytes(codec.pack(header, records))
        command = [sys.executable, "-m", "bitlaw", "decompress", stream, "--model", folder, "--output", back]
        command += ["--tokenizer", tokenizer, "--threads", other_threads]
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        ran = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"decode check failed: {ran.stderr.strip().splitlines()[-1:] or ran.returncode}")
        if back.read_bytes() != b"".join(chunks):
            raise RuntimeError("decode check failed: the stream decodes to other bytes")
    return {
        "chunks": len(chunks),
        "passed": True,
        "threads": other_threads,
        "batch": header.batch or len(chunks),
        **sizes,
    }
