"""ASCII symbols that a tokenizer lacks, written with two that it has; docs/format.md gives the rule.

Which symbols these are, and what stands for them, follows from the vocabulary alone, so that the hash of the
tokenizer in a stream says it all.
"""

import re

import numpy as np

from bitlaw import InputError

SYMBOLS = range(128)
KEPT = b"\t\n\r"  # control symbols that texts are full of: none of them becomes the escape
FIRST = ord("0")  # digits first: a letter would melt into the word that follows


def table(spelling):
    """{symbol: the two that stand for it}, single characters to str; {} when the vocabulary has all 128.

    `spelling`: bytes of each token, or None, as `tokens.open_tokenizer` gives it. The escape is the greatest control
    symbol that the vocabulary has but for tab, line feed and carriage return, or else its greatest symbol; it is
    written twice. The missing symbols in ascending order are the escape followed by the symbols of the vocabulary
    from "0" on. Raises InputError when too few are left for that.
    """
    alone = {data[0] for data in spelling if data is not None and len(data) == 1}
    missing = [symbol for symbol in SYMBOLS if symbol not in alone]
    if not missing:
        return {}
    present = [symbol for symbol in SYMBOLS if symbol in alone]
    escape = max((s for s in present if s < 32 and s not in KEPT), default=max(present, default=0))
    others = [symbol for symbol in present if symbol >= FIRST and symbol != escape]
    if len(others) < len(missing):
        raise InputError(
            f"the tokenizer lacks {len(missing)} of the 128 ASCII symbols and has {len(others)} to write them with; "
            "use one that has more of them"
        )
    second = {escape: escape} | dict(zip(missing, others, strict=False))
    return {chr(symbol): chr(escape) + chr(other) for symbol, other in second.items()}


def write(table, text):
    """`text` (str) in symbols that the tokenizer has."""
    return text.translate(str.maketrans(table))


def read(table, text):
    """Inverse of `write`, on bytes. What `write` never makes is left as it is: the chunk's check finds it."""
    symbols = {pair.encode(): symbol.encode() for symbol, pair in table.items()}
    return _pairs(table).sub(lambda match: symbols.get(match[0], match[0]), text) if table else text


def sizes(table, parts):
    """Bytes of the text before `write` that each of `parts` (bytes, consecutive) stands for: int32 array.

    A pair counts for the part that holds its second symbol; one that holds only the first can stand for nothing.
    """
    whole = b"".join(parts)
    counts = np.ones(len(whole), dtype=np.int32)
    counts[[match.start() for match in (_pairs(table).finditer(whole) if table else ())]] = 0
    ends = np.cumsum([0, *map(len, parts)])
    return np.diff(np.concatenate([[0], np.cumsum(counts)])[ends]).astype(np.int32)


def count(table, text):
    """How many symbols `write` wrote with two in what it made, `text` (bytes)."""
    return sum(1 for _ in _pairs(table).finditer(text)) if table else 0


def _pairs(table):
    escape = next(iter(table.values()))[0].encode()
    return re.compile(re.escape(escape) + b".", re.DOTALL)
