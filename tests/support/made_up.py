"""A small study with everything that its page shows, made up: no model runs."""

import hashlib
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bitlaw.analysis import cell_table
from bitlaw.compression import accounting
from bitlaw.data import seven_bit, shards, tokens
from bitlaw.figures import scaling
from bitlaw.laws import fitting
from bitlaw.report import page
from bitlaw.study import PROTOCOLS

SIZES = {"small": 64_000, "middle": 250_000, "large": 1_000_000}
STEPS = (75, 300, 1200)
CHUNKS = 3
LICENCE = 'free <script>alert("licence")</script> & "open"'


def study(folder, tokenizer_file, text):
    """A page.Study of text, image and random bytes in `folder`."""
    rng = np.random.default_rng(5)
    modalities = {"text": "bytes", "image": "image", "random": "bytes"}
    contents = {
        "text": np.frombuffer((text * 9).encode()[: CHUNKS * 2048], dtype=np.uint8),
        "image": np.tile(np.arange(0, 256, 4, dtype=np.uint8), 32 * CHUNKS),
        "random": rng.integers(0, 256, CHUNKS * 2048).astype(np.uint8),
    }
    tokenizer, spelling, sha256 = tokens.open_tokenizer(tokenizer_file)
    first_chunks, paths = {}, []
    for modality, cut in modalities.items():
        shard_folder = cut_up(folder / modality, contents[modality])
        texts = [seven_bit.to_ascii(chunk) for chunk in shards.read(shard_folder)]
        ids = tokens.encode(tokenizer, spelling, texts)
        tokens.write(folder / f"{modality}.npz", ids, spelling, sha256)
        for model, size in SIZES.items():
            for step in STEPS:
                about = cell(modality, model, size, step, rng)
                path = folder / "cells" / modality / model / f"step{step}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(about))
                ratio = np.array([about["cr_lossless"], about["cr_published"]]) * 8 * 2048
                bits = rng.exponential(5, len(ids[0])).astype(np.float32)
                rows = [
                    {"bytes": 2048, "kept": True, "bits_stream": ratio[0] + 99 * i, "bits_published": ratio[1] + 99 * i,
                     "bits_by_token": bits if i == 0 else None, "file": "one"}
                    for i in (0, -1, 1)
                ]  # fmt: skip
                pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
                paths.append(path)
        first_chunks[modality] = page.FirstChunk(
            shard_folder, folder / f"{modality}.npz", path.with_suffix(".parquet"), cut
        )
    cells = cell_table.collect(paths)
    cell_table.write_csv(cells, folder / "cells.csv")
    law_paths, laws = {}, fit(cells)
    for modality, law in laws.items():
        law_paths[modality] = folder / f"{modality}.law.json"
        law_paths[modality].write_text(json.dumps(law))
    drawn = {kind: folder / f"scaling.{kind}" for kind in ("svg", "png")}
    scaling.draw(cells, laws, drawn)
    config = {"study": "made-up", "modalities": [{"name": name} for name in modalities], "note": "<i>&"}
    return page.Study(
        config=config,
        cells=folder / "cells.csv",
        laws=law_paths,
        figure=drawn["svg"],
        citation=page.TEMPLATE.parents[1] / "CITATION.cff",
        abouts=paths,
        first_chunks=first_chunks,
        pictures={"curves": drawn["png"]},
    )


def cut_up(folder, data):
    """Shards of `data` from a source in one file."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "file").write_bytes(data.tobytes())
    about = {"path": "file", "sha256": hashlib.sha256(data.tobytes()).hexdigest()}
    (source / "source.json").write_text(json.dumps({"name": "made up", "licence": LICENCE, "files": [about]}))
    shards.cut(source, {"cut": "bytes", "sampling": "head", "chunks": CHUNKS}, 2048, folder / "shards")
    return folder / "shards"


def cell(modality, model, size, step, rng):
    """A cell's json: text follows a law, the others rise with size."""
    noise = 0.001 * rng.normal()
    published = 0.15 + 12 * size**-0.5 + 5 * step**-0.8 + noise
    if modality != "text":
        published = 0.55 + 0.02 * np.log10(size) + noise
    terms = dict.fromkeys(accounting.AUDIT_TERMS, 0.001) | {"audit_past_1024": 0.0 if modality == "text" else 0.6}
    return {
        **{"modality": modality, "model": model, "step": step, "chunks": CHUNKS, "dropped": 0, **terms},
        **{"cr_published": published, "cr_lossless": published + sum(terms.values())},
        **{"params_total": size, "params_nonembedding": size // 2},
        **{"weights_sha256": hashlib.sha256(f"{model}{step}".encode()).hexdigest()},
        **{"mode": "exact", "precision": "exact"},
        **{"stream_sha256": hashlib.sha256(f"{modality}{model}{step}".encode()).hexdigest(), "seconds": 2.5},
        **{"seconds_by_part": {"load": 0.5, "score": 1.0, "code": 0.1, "verify": 0.9}, "tokens_per_second": 1000.0},
        **{"bytes_per_second": 2000.0, "peak_memory_bytes": 5 * 10**8, "versions": {"torch": "2.13.0"}},
        "decode_check": {"chunks": 1, "chunk_numbers": [0], "passed": True, "one_shot_bytes": 90, "steps_bytes": 90},
    }  # fmt: skip


def fit(cells):
    """{modality: {protocol: law}} by least squares alone, which is quick."""
    laws = {}
    for modality, part in cells.groupby("modality", sort=False):
        columns = {protocol: part[f"cr_{protocol}"] for protocol in PROTOCOLS}
        laws[modality] = {p: fitting.fit(part["params_total"], part["step"], ratio) for p, ratio in columns.items()}
    return laws


def read_cells(study):
    return pd.read_csv(study.cells)
