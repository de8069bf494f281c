"""Chunks to tokens: the ids, how many bytes each token stands for, and the file that keeps both.

The tokens of a text, put together, spell it byte by byte: only then can the bytes be restored from them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from bitlaw import InputError
from bitlaw.data import escapes, spans, vocabularies
from bitlaw.runtime.atomic import replacing

AUTO, NONE = "auto", "none"  # settings of `bos`


def open_tokenizer(path):
    """(tokenizer, spelling, sha256 of the file): `spelling[i]` is the bytes that token i stands for, or None.

    The tokenizer is the file's without what it puts in front of a text (see `vocabularies.plain`).
    """
    tokenizer, description, text = _read(path)
    vocabularies.check(description, path)
    spelling = vocabularies.spelling(tokenizer, description)
    return Tokenizer.from_str(json.dumps(vocabularies.plain(description))), spelling, hashlib.sha256(text).hexdigest()


def _read(path):
    """(tokenizer, the file's content as a dict, the file's bytes)."""
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
    return tokenizer, json.loads(text), text


def prefix(path, bos):
    """The id of the token that stands in front of every window, or None: by a model's setting `bos`.

    bos: AUTO (what the post-processor of the tokenizer.json at `path` puts in front of a text), NONE or an id.
    """
    if bos == NONE:
        return None
    if bos != AUTO:
        return int(bos)
    found = vocabularies.in_front(_read(path)[0])
    if len(found) > 1:
        raise InputError(
            f"{path}: it puts {len(found)} tokens in front of a text, {found}: give the model `bos`, an id or none"
        )
    return found[0] if found else None


def encode(tokenizer, spelling, texts, first=0):
    """Token ids, a list of int32 arrays, one for each ASCII string of `texts`: those of `encode_counted`."""
    return encode_counted(tokenizer, spelling, texts, first)[0]


def encode_counted(tokenizer, spelling, texts, first=0):
    """(token ids, a list of int32 arrays; repaired bytes, a list of int), one for each ASCII string of `texts`.

    No special tokens are added. Symbols that the vocabulary lacks are written with two others (see `escapes`), and
    these are what the tokens spell. Spans of a text that the tokenizer does not give back are spelt out by the longest
    tokens that match (see `spans`), and their bytes counted. Raises InputError where no tokens spell a text;
    `first`: the number of the first text, for that.
    """
    table = escapes.table(spelling)
    texts = [escapes.write(table, text) for text in texts]
    ids = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    anew, known = [0] * len(ids), None
    for number, (text, own) in enumerate(zip(texts, ids, strict=True)):
        if _spelt(spelling, own) == text.encode():
            continue
        known = known or spans.words(tokenizer, spelling)
        encoding = tokenizer.encode(text, add_special_tokens=False)
        ids[number], anew[number] = spans.repaired(text.encode(), encoding, spelling, known)
        if _spelt(spelling, ids[number]) != text.encode():
            raise InputError(f"chunk {first + number}: no tokens of the tokenizer spell it; use another tokenizer")
    return [np.array(own, dtype=np.int32) for own in ids], anew


def _spelt(spelling, ids):
    return b"".join(spelling[i] or b"" for i in ids)


def lengths(spelling, ids):
    """Bytes that each token of `ids` stands for: int32 array of the same length (see `escapes.sizes`)."""
    return escapes.sizes(escapes.table(spelling), [spelling[i] for i in ids])


def write(path, ids, spelling, sha256, repaired=None):
    """Save the ragged `ids` as .npz: ids int32, offsets int64, bytes a token int32, and two counts a chunk, int64:
    escaped symbols, and bytes that were `repaired` (see `encode_counted`; None: not one)."""
    table = escapes.table(spelling)
    escaped = [escapes.count(table, b"".join(spelling[i] for i in chunk)) for chunk in ids]
    flat = np.concatenate([*ids, np.empty(0, dtype=np.int32)])
    offsets = np.cumsum([0, *map(len, ids)])
    counts = {"escaped": np.array(escaped), "repaired": np.array(repaired or [0] * len(ids))}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        sizes = lengths(spelling, flat)
        np.savez(file, ids=flat, offsets=offsets, bytes=sizes, **counts, tokenizer=np.array(sha256))


def read(path):
    """(ids, bytes, tokenizer sha256): two lists of int32 arrays, one a chunk, as `write` saved them."""
    with np.load(path) as stored:
        cuts = stored["offsets"][1:]  # the part after the last cut is empty
        return np.split(stored["ids"], cuts)[:-1], np.split(stored["bytes"], cuts)[:-1], str(stored["tokenizer"])


def read_escaped(path):
    """How many symbols of each chunk were escaped, int array, as `write` saved it."""
    with np.load(path) as stored:
        return stored["escaped"]


def read_repaired(path):
    """How many bytes of each chunk the tokenizer did not give back, int array, as `write` saved it."""
    with np.load(path) as stored:
        return stored["repaired"]
