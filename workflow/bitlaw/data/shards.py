"""The shard format: the chunks of a data set as uint8 arrays in files of equal size, with a manifest.

A folder of shards holds `shard-00000.npy` ... (uint8 [n, chunk_bytes], n = SHARD chunks each, the last one fewer) and
`manifest.json`: format, source (name, licence, files with sha256), sampling, chunk_bytes, counts, shards (file,
chunks, sha256), and chunks: for each, in order, its number among those available and where it came from.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from bitlaw import InputError
from bitlaw.data.chunking import open_chunks, sample
from bitlaw.runtime.atomic import replacing_folder
from bitlaw.runtime.hashing import digest
from bitlaw.runtime.logs import progress

FORMAT = 1
SHARD = 256  # chunks in a shard


def cut(source_folder, modality, chunk_bytes, out):
    """Write the chunks of the source in `source_folder` to the folder `out`; return the manifest.

    `modality` is a dict: cut (bytes, image or speech), sampling (head: the first chunks; spread: drawn without
    replacement from all, in order; even: drawn from every file in turn), chunks (how many), seed; bytes: range ([first,
    last] in bytes of the files put together, last not included); image: patches (all, or crop: one an image); speech:
    rate (Hz), convert (bool).
    Raises InputError for a setting out of bounds, a file that changed or cannot be read, and too few chunks.
    """
    source_folder = Path(source_folder)
    source = json.loads((source_folder / "source.json").read_text())
    files = sorted(source["files"], key=lambda file: file["path"])
    paths = {file["path"]: source_folder / file["path"] for file in files}  # an absolute path stays as it is
    for file in files:
        path = paths[file["path"]]
        if not path.is_file() or digest(path) != file["sha256"]:
            raise InputError(f"{path} is missing or changed since it was fetched; fetch {source['name']!r} again")
    chunks = open_chunks(paths, modality, chunk_bytes)
    numbers = [int(number) for number in sample(chunks, modality, source["name"])]
    with replacing_folder(out) as new:
        described = {
            "format": FORMAT,
            "source": {"name": source["name"], "licence": source["licence"], "files": files},
            "sampling": modality,
            "chunk_bytes": chunk_bytes,
            "counts": {"chunks": len(numbers), "available": chunks.available, **chunks.counts},
            "shards": _write(new, chunks, numbers, source["name"]),
            "chunks": [{"of_available": number, **chunks.origin(number)} for number in numbers],
        }
        (new / "manifest.json").write_text(json.dumps(described, indent=1))
    return described


def _write(folder, chunks, numbers, name):
    """Write the chunks of these numbers as shards into `folder`: their entries for the manifest."""
    report = progress(f"cut {name}", len(numbers), "chunks")
    entries = []
    for start in range(0, len(numbers), SHARD):
        rows = [np.frombuffer(chunks.read(number), dtype=np.uint8) for number in numbers[start : start + SHARD]]
        path = folder / f"shard-{len(entries):05d}.npy"
        np.save(path, np.stack(rows))
        entries.append({"file": path.name, "chunks": len(rows), "sha256": digest(path)})
        report(start + len(rows))
    return entries


def manifest(folder):
    """The manifest of a folder of shards, as a dict."""
    path = Path(folder) / "manifest.json"
    try:
        described = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); delete {folder} and cut it again") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise InputError(f"{path} is not a manifest of format {FORMAT}; delete {folder} and cut it again")
    return described


def read(folder):
    """All chunks of a folder of shards, uint8 [chunks, chunk_bytes], every shard checked against its sha256."""
    blocks = []
    for shard in manifest(folder)["shards"]:
        path = Path(folder) / shard["file"]
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != shard["sha256"]:
            raise InputError(f"{path} is missing or not the file of its manifest; delete {folder} and cut it again")
        blocks.append(np.load(io.BytesIO(data), allow_pickle=False))
    return np.concatenate(blocks)
