"""Rows of docs/models.md: how each architecture of transformers is coded. As a program, this file prints it."""

import json
import tempfile
from pathlib import Path

import numpy as np

import tiny_families
from bitlaw import InputError
from bitlaw.compression import accounting, lockstep, range_coder, scoring
from bitlaw.models import checkpoint
from bitlaw.models.exact import description
from tiny_models import random_checkpoint

EXACT, LOCKSTEP, NO_CACHE, NOT_TRIED = "exact", "lock-step", "lock-step, without a cache", "not tried"
GIVEN = "; needs `context`"
REFUSALS = {
    "a later token changes": "refused: sees later tokens",
    "single steps": "refused: steps are not what one pass is",
    "a pass through it fails": "refused: its pass fails",
    "makes no causal language model": "refused: not loaded",
}
LENGTHS = 90, 40  # of the two chunks, in tokens: longer and shorter than a context


def row(family):
    """(how the family is coded, the refusal or None), after two chunks of it came back as one pass says they cost."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            random_checkpoint(tiny_families.config(family), Path(folder), scale=4)
        except Exception:  # whatever a class says to the tiny settings: then there is nothing to try
            return NOT_TRIED, None
        return _coded(folder)


def _coded(folder):
    more = ""
    try:
        try:
            model = checkpoint.load(folder)
        except InputError as error:
            if "`context`" not in str(error):
                raise
            model, more = checkpoint.load(folder, context=tiny_families.CONTEXT), GIVEN
    except InputError as error:
        line = str(error)
        return next(short for part, short in REFUSALS.items() if part in line) + more, line
    check(model)
    if description.covers(json.loads((Path(folder) / "config.json").read_text())) is None:
        check_exact(checkpoint.load(folder, "exact"), model)
        return EXACT + more, None
    return (LOCKSTEP if getattr(model, "cached", True) else NO_CACHE) + more, None


def check(model):
    """Raise AssertionError unless two chunks cost by steps what one pass says, and decode."""
    draw = np.random.default_rng(0)
    ids = [draw.integers(0, model.vocabulary, length) for length in LENGTHS]
    steps = lockstep.encode(model, ids, 2)
    for own, scores in zip(steps, scoring.score(model, ids, 1000), strict=True):
        bits, ideal = np.log2(own[2] / own[1]), accounting.ideal_bits(scores)
        # where two experts are as good as equal, rounding may choose the other for a token
        assert np.median(np.abs(bits - ideal)) < 1e-3 and np.abs(bits - ideal).mean() < 0.05, np.abs(bits - ideal)
        assert bits[1:].std() > 1e-3, "the model predicts nothing"
    opened = [range_coder.start_decoding(range_coder.encode(*own)) for own in steps]
    decoded = [own for own, _ in lockstep.decode(model, opened, list(LENGTHS), 2)]
    assert all(np.array_equal(*pair) for pair in zip(decoded, ids, strict=True))


def check_exact(exact, model):
    """Raise AssertionError unless tokens cost in exact arithmetic what they cost the same model in fp32, nearly."""
    ids = [np.random.default_rng(1).integers(0, model.vocabulary, LENGTHS[1])]
    ours, theirs = (accounting.ideal_bits(scoring.score(m, ids, 1000)[0]) for m in (exact, model))
    assert theirs[1:].std() > 0.1 and np.abs(ours - theirs).max() < 0.005, np.abs(ours - theirs).max()


if __name__ == "__main__":
    found = {}
    for family in tiny_families.FAMILIES:
        found.setdefault(row(family)[0], []).append(f"`{family}`")
    for how, families in sorted(found.items()):
        print(f"| {', '.join(families)} | {how} |")
