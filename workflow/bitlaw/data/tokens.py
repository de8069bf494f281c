"""Chunks to tokens: the ids, how many bytes each token stands for, and the file that keeps both.

What a tokenizer makes of a text is refused unless its tokens, put together, spell that text byte by byte: only then can
the bytes be restored from the tokens.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from bitlaw import InputError
from bitlaw.data import escapes
from bitlaw.runtime.atomic import replacing


def open_tokenizer(path):
    """(tokenizer, spelling, sha256 of the file): `spelling[i]` is the bytes that token i stands for, or None."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: no tokenizer.json there ({error.strerror}); give the model's tokenizer file"
        ) from None
    try:
        tokenizer = Tokenizer.from_str(text.decode())
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InputError(f"{path}: not a tokenizer.json that the tokenizers library reads ({error})") from None
    return tokenizer, _spelling(tokenizer, json.loads(text)), hashlib.sha256(text).hexdigest()


def _byte_symbols():
    """GPT-2's alphabet (Radford et al. 2019): the character that a byte-level tokenizer writes for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in plain)
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def _spelling(tokenizer, description):
    """Bytes of every token id, from the vocabulary and not from the decoder, which may tidy spaces away."""
    added = {token["id"]: token["content"] for token in description.get("added_tokens", [])}
    byte_level = _byte_symbols() if '"ByteLevel"' in json.dumps(description) else None
    spelling = []
    for i in range(1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)):  # ids may have gaps
        token = tokenizer.id_to_token(i)
        if i in added:
            spelling.append(added[i].encode())
        elif token is None:
            spelling.append(None)
        elif byte_level is not None:
            known = all(c in byte_level for c in token)
            spelling.append(bytes(byte_level[c] for c in token) if known else None)
        elif len(token) == 6 and token.startswith("<0x"):  # byte fallback of sentencepiece vocabularies
            spelling.append(bytes([int(token[3:5], 16)]))
        else:
            spelling.append(token.replace("▁", " ").encode())
    return spelling


def encode(tokenizer, spelling, texts, first=0):
    """Token ids, a list of int32 arrays, one for each ASCII string of `texts`; no special tokens are added.

    Symbols that the vocabulary lacks are written with two others (see `escapes`), and these are what the tokens
    spell. Raises InputError for a text that the tokens do not spell out byte by byte; `first`: the number of the
    first text, for that.
    """
    table = escapes.table(spelling)
    texts = [escapes.write(table, text) for text in texts]
    ids = [np.asarray(e.ids, dtype=np.int32) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    for number, (text, tokens) in enumerate(zip(texts, ids, strict=True), first):
        spelled = b"".join(spelling[i] or b"" for i in tokens)
        if spelled != text.encode():
            missing = sorted(set(text.encode()) - set(spelled))
            what = f"it drops the bytes {missing[:8]}" if missing else "it changes their order or number"
            raise InputError(
                f"chunk {number}: the tokenizer does not give its bytes back ({what}); use one without normaliser"
            )
    return ids


def lengths(spelling, ids):
    """Bytes that each token of `ids` stands for: int32 array of the same length (see `escapes.sizes`)."""
    return escapes.sizes(escapes.table(spelling), [spelling[i] for i in ids])


def write(path, ids, spelling, sha256):
    """Save the ragged `ids` as .npz: ids int32, offsets int64, bytes a token int32, escaped symbols a chunk int64."""
    table = escapes.table(spelling)
    escaped = [escapes.count(table, b"".join(spelling[i] for i in chunk)) for chunk in ids]
    flat = np.concatenate([*ids, np.empty(0, dtype=np.int32)])
    offsets = np.cumsum([0, *map(len, ids)])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        sizes = lengths(spelling, flat)
        np.savez(file, ids=flat, offsets=offsets, bytes=sizes, escaped=np.array(escaped), tokenizer=np.array(sha256))


def read(path):
    """(ids, bytes, tokenizer sha256): two lists of int32 arrays, one a chunk, as `write` saved them."""
    with np.load(path) as stored:
        cuts = stored["offsets"][1:]  # the part after the last cut is empty
        return np.split(stored["ids"], cuts)[:-1], np.split(stored["bytes"], cuts)[:-1], str(stored["tokenizer"])


def read_escaped(path):
    """How many symbols of each chunk were escaped, int array, as `write` saved it."""
    with np.load(path) as stored:
        return stored["escaped"]
