"""Chunks, shards and tokens of a small data set."""

import hashlib
import json

import numpy as np
import pytest

from bitlaw.data import seven_bit, shards, tokens
from cell_process import CHUNKS, SIZE


@pytest.fixture(scope="module")
def data(tmp_path_factory, passage, neox_folder):
    """Shards of text, random bytes and text, and their token file."""
    folder = tmp_path_factory.mktemp("data")
    content = passage.encode()[:SIZE] + np.random.default_rng(0).bytes(SIZE) + passage.encode()[:SIZE][::-1]
    (folder / "a").write_bytes(content)
    files = [{"path": "a", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}]
    (folder / "source.json").write_text(json.dumps({"name": "mine", "licence": "CC0", "files": files}))
    shards.cut(folder, {"cut": "bytes", "sampling": "head", "chunks": CHUNKS}, SIZE, folder / "shards")
    tokenizer, spelling, sha256 = tokens.open_tokenizer(neox_folder / "tokenizer.json")
    texts = [seven_bit.to_ascii(chunk) for chunk in shards.read(folder / "shards")]
    tokens.write(folder / "tokens.npz", tokens.encode(tokenizer, spelling, texts), spelling, sha256)
    return folder
