"""Cut a source into chunks of equal size, and the shard format: uint8 arrays with a manifest.

A folder of shards holds `shard-00000.npy` ... (uint8 [n, chunk_bytes], SHARD chunks each, the last one fewer) and
`manifest.json`: format, source (name, licence, files with sha256), sampling, chunk_bytes, counts, shards (file,
chunks, sha256), and chunks: for each, in order, its number among those available and where it came from.
"""

import hashlib
import io
import json
from bisect import bisect_right
from functools import lru_cache, partial
from itertools import accumulate
from math import gcd
from pathlib import Path

import numpy as np

from bitlaw import InputError
from bitlaw.runtime.atomic import replacing_folder
from bitlaw.runtime.hashing import digest
from bitlaw.runtime.logs import progress

FORMAT = 1
SHARD = 256  # chunks in a shard
ROWS, COLUMNS = 32, 64  # pixels of a patch; one byte each, so a patch is a chunk of 2048 bytes


def cut(source_folder, modality, chunk_bytes, out):
    """Write the chunks of the source in `source_folder` to the folder `out`; return the manifest.

    `modality` is a dict: cut (bytes, image or speech), sampling (head: the first chunks; spread: drawn without
    replacement from all, in order), chunks (how many), seed; bytes: range ([first, last] in bytes of the files put
    together, last not included); image: patches (all, or crop: one an image); speech: rate (Hz), convert (bool).
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
    kinds = {"bytes": _bytes, "image": _image, "speech": _speech}
    pool, origin, read_one, more = _setting(modality, "cut", kinds)(paths, modality, chunk_bytes)
    chosen = _choose(pool, modality, source["name"])
    at = progress(f"cut {source['name']}", len(chosen), "chunks")
    with replacing_folder(out) as new:
        shards = []
        for start in range(0, len(chosen), SHARD):
            rows = [np.frombuffer(read_one(i), dtype=np.uint8) for i in chosen[start : start + SHARD]]
            name = f"shard-{len(shards):05d}.npy"
            np.save(new / name, np.stack(rows))
            shards.append({"file": name, "chunks": len(rows), "sha256": digest(new / name)})
            at(start + len(rows))
        found = {
            "format": FORMAT,
            "source": {"name": source["name"], "licence": source["licence"], "files": files},
            "sampling": modality,
            "chunk_bytes": chunk_bytes,
            "counts": {"chunks": len(chosen), "available": pool, **more},
            "shards": shards,
            "chunks": [{"of_available": int(i), **origin(i)} for i in chosen],
        }
        (new / "manifest.json").write_text(json.dumps(found, indent=1))
    return found


def manifest(folder):
    """The manifest of a folder of shards, as a dict."""
    path = Path(folder) / "manifest.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); delete {folder} and cut it again") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path} is not a manifest of format {FORMAT}; delete {folder} and cut it again")
    return found


def read(folder):
    """All chunks of a folder of shards, uint8 [chunks, chunk_bytes], every shard checked against its sha256."""
    found, blocks = manifest(folder), []
    for shard in found["shards"]:
        path = Path(folder) / shard["file"]
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != shard["sha256"]:
            raise InputError(f"{path} is missing or not the file of its manifest; delete {folder} and cut it again")
        blocks.append(np.load(io.BytesIO(data), allow_pickle=False))
    return np.concatenate(blocks)


def _setting(modality, key, allowed):
    value = modality.get(key)
    if value not in allowed:
        raise InputError(f"{key} is {value!r}; set it to one of: {', '.join(allowed)}")
    return allowed[value] if isinstance(allowed, dict) else value


def _choose(pool, modality, name):
    """Indices of the chunks to take among `pool`: int array, ascending."""
    wanted = modality.get("chunks")
    if type(wanted) is not int or wanted < 1:
        raise InputError(f"chunks is {wanted!r}; set it to the number of chunks to take, at least 1")
    if wanted > pool:
        raise InputError(f"{name} gives {pool} chunks but {wanted} are asked for; lower `chunks` or add files")
    if _setting(modality, "sampling", ("head", "spread")) == "head":
        return np.arange(wanted)
    return np.sort(np.random.default_rng(modality["seed"]).choice(pool, size=wanted, replace=False))


# Each of the three below takes {name: path} in the order of cutting and returns
# (chunks available, index -> dict that says where the chunk is from, index -> its bytes, more counts).


def _consecutive(names, sizes, first, count, index, unit):
    """Where chunk `index` of `count` units lies in files of `sizes` units put together, counted from `first`.

    Returns its parts, a list of (name, start, count), and the dict for the manifest; `unit`: offset or sample.
    """
    ends, parts, first = list(accumulate(sizes)), [], first + int(index) * count
    file = bisect_right(ends, first)
    while count:
        start = first - (ends[file] - sizes[file])
        part = min(count, sizes[file] - start)
        if part:
            parts.append((names[file], start, part))
        first, count, file = first + part, count - part, file + 1
    more = [name for name, *_ in parts[1:]]  # files that follow when the chunk spans several
    return parts, {"file": parts[0][0], unit: parts[0][1], **({"then": more} if more else {})}


def _bytes(paths, modality, chunk_bytes):
    sizes = [path.stat().st_size for path in paths.values()]
    first, last = modality.get("range") or (0, sum(sizes))
    if not 0 <= first < last <= sum(sizes):
        raise InputError(f"range is [{first}, {last}]; keep 0 <= first < last <= {sum(sizes)}, the bytes there are")
    where = partial(_consecutive, list(paths), sizes, first, chunk_bytes, unit="offset")

    def read_one(index):
        data = b""
        for name, start, count in where(index)[0]:
            with open(paths[name], "rb") as stream:
                stream.seek(start)
                data += stream.read(count)
        return data

    pool, rest = divmod(last - first, chunk_bytes)
    return pool, lambda index: where(index)[1], read_one, {"bytes_left_out_at_end": rest}


def _image(paths, modality, chunk_bytes):
    from PIL import Image  # here, so that cutting text needs neither Pillow nor soundfile

    if chunk_bytes != ROWS * COLUMNS:
        raise InputError(f"chunk_bytes is {chunk_bytes}; an image patch has {ROWS * COLUMNS} bytes, so set it to that")
    crop = _setting(modality, "patches", ("all", "crop")) == "crop"
    draw = np.random.default_rng(modality["seed"]).integers if crop else None
    patches, skipped, pixels_in_all = [], [], 0

    def opened(name, take):
        try:
            with Image.open(paths[name]) as image:
                return take(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{paths[name]} cannot be read as an image ({error}); fetch it again or remove it"
            ) from error

    for name, path in paths.items():
        (width, height), mode = opened(name, lambda image: (image.size, image.mode))
        if mode.startswith(("I", "F")):  # Pillow would clip these to 255 without a word
            raise InputError(f"{path} has pixels of mode {mode}, more than 8 bits; convert it to 8 bits a channel")
        pixels_in_all += width * height
        rows, columns = range(height - ROWS + 1), range(width - COLUMNS + 1)  # where a patch may start
        if not rows or not columns:
            skipped.append(name)
        elif crop:
            patches.append((name, int(draw(len(rows))), int(draw(len(columns)))))
        else:
            patches += [(name, row, column) for row in rows[::ROWS] for column in columns[::COLUMNS]]

    @lru_cache(maxsize=1)  # chunks come in the order of the files
    def pixels(name):
        """uint8 [height, width]: luma as in ITU-R BT.601; transparency is dropped."""
        return opened(name, lambda image: np.asarray(image.convert("L")))

    def read_one(index):
        name, row, column = patches[index]
        return pixels(name)[row : row + ROWS, column : column + COLUMNS].tobytes()

    left_out = pixels_in_all - len(patches) * chunk_bytes
    more = {"images": len(paths), "images_too_small": skipped, "pixels_outside_patches": left_out}
    return len(patches), lambda index: dict(zip(("file", "row", "column"), patches[index], strict=True)), read_one, more


def _speech(paths, modality, chunk_bytes):
    import soundfile

    rate, samples, converted = modality["rate"], [], []
    if chunk_bytes % 2:
        raise InputError(f"chunk_bytes is {chunk_bytes}; a speech sample has 2 bytes, so set an even number")
    for name, path in paths.items():
        try:
            info = soundfile.info(path)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path} cannot be read as sound ({error}); fetch it again or remove it") from error
        found = [("rate", info.samplerate, rate), ("samples", info.subtype, "PCM_16"), ("channels", info.channels, 1)]
        other = [f"{what} {value}, not {wanted}" for what, value, wanted in found if value != wanted]
        if other and not modality.get("convert"):
            raise InputError(f"{path} has {'; '.join(other)}; set `convert: true` to have it converted")
        if other:
            converted.append(name)
        samples.append(-(-info.frames * rate // info.samplerate))  # what resample_poly returns

    @lru_cache(maxsize=2)
    def utterance(name):
        """int16 [samples], little-endian: as stored, or converted where that was allowed."""
        if name not in converted:
            return soundfile.read(paths[name], dtype="int16")[0].astype("<i2")
        from scipy.signal import resample_poly

        sound, stored = soundfile.read(paths[name], dtype="float64", always_2d=True)
        common = gcd(rate, stored)
        sound = resample_poly(sound.mean(axis=1), rate // common, stored // common)
        return np.clip(np.rint(sound * 32768), -32768, 32767).astype("<i2")

    where = partial(_consecutive, list(paths), samples, 0, chunk_bytes // 2, unit="sample")

    def read_one(index):
        return b"".join(utterance(name)[start : start + count].tobytes() for name, start, count in where(index)[0])

    pool, rest = divmod(2 * sum(samples), chunk_bytes)
    more = {"files": len(paths), "files_converted": converted, "bytes_left_out_at_end": rest}
    return pool, lambda index: where(index)[1], read_one, more
