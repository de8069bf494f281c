"""Data sets for the loopback Hub, in the schemas of ImageNet and LibriSpeech."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image

from repository import ROOT

RNG = np.random.default_rng(11)


IMAGES, SPEECH = "ILSVRC/imagenet-1k", "openslr/librispeech_asr"


def photograph(height, width):
    """JPEG of a sloping, grainy plane, different each time."""
    slope = np.linspace(0, RNG.integers(60, 180), width) + np.linspace(0, RNG.integers(20, 70), height)[:, None]
    pixels = np.clip(slope[..., None] + RNG.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def utterance(samples, rate=16000, values=None):
    """FLAC of `samples` int16 values, and the values."""
    if values is None:
        values = np.cumsum(RNG.integers(-200, 201, samples)).clip(-20000, 20000).astype("<i2")
    buffer = io.BytesIO()
    soundfile.write(buffer, values, rate, "PCM_16", format="FLAC")
    return buffer.getvalue(), values


def real_photographs(count):
    """JPEG tiles of the embedded study's photographs where these have been fetched; made-up ones elsewhere."""
    tiles = []
    for path in sorted((ROOT / "data/raw/photographs").glob("*.[jp][pn]g")):
        with Image.open(path) as image:
            for left in range(0, image.width - 127, 128):
                buffer = io.BytesIO()
                image.convert("RGB").crop((left, 0, left + 128, 128)).save(buffer, "JPEG", quality=90)
                tiles.append(buffer.getvalue())
    return tiles[:count] or [photograph(40, 70) for _ in range(count)]


def real_speech(count, samples):
    """FLAC and values of `count` utterances, of the embedded study's speech where that has been fetched."""
    read = [soundfile.read(p, dtype="int16")[0] for p in sorted((ROOT / "data/raw/readers").glob("*.wav"))]
    values = np.concatenate(read)[: count * samples].reshape(count, samples) if read else [None] * count
    return [utterance(samples, values=row) for row in values]


def parquet(column, kind, items, names, more, row_group=4):
    """A file as the Hub's viewer writes it: a column of struct<bytes, path>, others, and the features as metadata."""
    values = [{"bytes": data, "path": name} for data, name in zip(items, names, strict=True)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(values, struct), **{name: pa.array(row) for name, row in more.items()}})
    plain = {name: {"dtype": str(table[name].type), "_type": "Value"} for name in more}
    features = {"info": {"features": {column: kind, **plain}}}
    buffer = io.BytesIO()
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, buffer, row_group_size=row_group, compression="none")
    return buffer.getvalue()


def card(config, split, path):
    return (
        f"---\nconfigs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {path}\n---\n".encode()
    )


def add_images(hub, items, per_file=8, **more):
    """In ImageNet's schema and its names of files; the names of the images are in no order."""
    files = {"README.md": card("default", "validation", "data/validation-*")}
    count = -(-len(items) // per_file)
    for n in range(count):
        part = items[n * per_file : (n + 1) * per_file]
        names = [f"ILSVRC2012_val_{(7919 * (n * per_file + i)) % 50000:08d}.JPEG" for i in range(len(part))]
        data = parquet("image", {"_type": "Image"}, part, names, {"label": list(range(len(part)))})
        files[f"data/validation-{n:05d}-of-{count:05d}.parquet"] = data
    return hub.add(f"datasets/{IMAGES}", files, **more)


def add_speech(hub, items, names=None):
    """In LibriSpeech's schema."""
    names = names or [f"374-180298-{i:04d}.flac" for i in range(len(items))]
    more = {
        "file": names,
        "text": ["CHAPTER SIXTEEN"] * len(items),
        "speaker_id": [374] * len(items),
        "chapter_id": [180298] * len(items),
        "id": [name.removesuffix(".flac") for name in names],
    }
    data = parquet("audio", {"sampling_rate": 16000, "_type": "Audio"}, items, names, more)
    files = {"README.md": card("clean", "train.100", "clean/train.100/*.parquet"), "clean/train.100/0000.parquet": data}
    return hub.add(f"datasets/{SPEECH}", files)
