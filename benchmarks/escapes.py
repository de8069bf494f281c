"""What escapes cost: bits of each symbol that a tokenizer lacks, beside control symbols that it has.

    PYTHONPATH=workflow python benchmarks/escapes.py FOLDER FILE CHUNK [CHUNK ...]

FOLDER is a checkpoint with its tokenizer.json; the chunks are numbers of 2048-byte chunks of FILE.
"""

import sys
from pathlib import Path

import numpy as np

from bitlaw.compression import scoring
from bitlaw.data import escapes, seven_bit, tokens
from bitlaw.models import checkpoint

SIZE = 2048


def main(folder, file, *numbers):
    model = checkpoint.load(folder)
    tokenizer, spelling, _ = tokens.open_tokenizer(Path(folder) / "tokenizer.json")
    table = escapes.table(spelling)
    if not table:
        sys.exit(f"{folder}: its tokenizer lacks no symbol, so nothing is escaped; give a checkpoint whose does")
    data = []
    with open(file, "rb") as source:
        for number in numbers:
            source.seek(SIZE * int(number))
            data.append(source.read(SIZE))
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in data])
    scores = scoring.score(model, ids, SIZE)
    escape = next(iter(table.values()))[0].encode()
    escaped, control = [], []
    for own, score in zip(ids, scores, strict=True):
        spelled, pending = [spelling[i] for i in own], False
        for i, token in enumerate(spelled):
            if pending:  # the pair's bits are those of both of its tokens
                escaped.append(score.lengths[i - 1] + score.lengths[i])
                pending = False
            elif token == escape:
                pending = True
            elif len(token) == 1 and token[0] < 32 and token not in b"\t\n\r":
                control.append(score.lengths[i])
    total = sum(score.lengths.sum() for score in scores)
    print(f"{len(data)} chunks, {total / (SIZE * len(data)):.3f} bits a byte (ideal, without top bits and container)")
    for name, bits in (("escaped symbols", escaped), ("control symbols of the vocabulary", control)):
        each = f"{np.mean(bits):.1f} bits each" if bits else "none in these chunks"
        print(f"{len(bits)} {name}: {each}, {100 * np.sum(bits) / total:.1f} % of all")


if __name__ == "__main__":
    main(*sys.argv[1:])
