"""How far a law's coefficients move when its data are drawn again: bootstrap over chunks, wild bootstrap over cells.

The chunk bootstrap says what another sample of chunks would have given. The wild bootstrap (Wu 1986; two-point
weights of Mammen 1993) says what other residuals of the observed size would have given, so it holds the misfit of the
form, too, and needs no chunks. Both draw from the law's own neighbourhood: a refit starts at the law.
"""

import math

import numpy as np

from bitlaw import InputError
from bitlaw.analysis.block_bootstrap import BLOCK, DRAWS, TAILS, block_of, redraws
from bitlaw.laws import estimation, forms
from bitlaw.laws.estimation import Problem
from bitlaw.laws.fitting import values_of
from bitlaw.laws.forms import SIZE, TERMS, TRAINING


def over_chunks(law, chunks, files=None, draws=DRAWS, block=BLOCK, seed=0):
    """Refits of `law` to means over chunks drawn again, by file or in blocks of neighbours, the same for every cell.

    chunks: float `[cells, chunks]`, the ratio of each chunk (NaN where dropped), cells in the order of the law's data;
    files: the file of each chunk, see `block_bootstrap.redraws`; one for all unless given. Returns {"kind", "draws",
    "block", "coefficients": {name: {low, high}} (95 %), "samples": [[a, b, ...], ...]}; a
    term that vanished in a draw has scale 0 and no exponent (None).
    """
    chunks = np.asarray(chunks, dtype=np.float64)
    if chunks.ndim != 2 or len(chunks) != law["n"]:
        raise InputError(f"law: ratios of chunks have shape {chunks.shape}, needs [{law['n']} cells, chunks]")
    files = [""] * chunks.shape[1] if files is None else files
    ratios = [np.nanmean(chunks[:, drawn], axis=1) for drawn in redraws(files, draws, block, seed)]
    together = block_of(files, block)
    return {"kind": "chunks" if together else "files", "block": together} | _refits(law, ratios)


def over_cells(law, draws=DRAWS, seed=0):
    """Refits of `law` to its fitted ratios with residuals of random sign and size; see `over_chunks` for the result."""
    rng = np.random.default_rng(seed)
    observed, residuals = np.array(law["ratio"]), np.array(law["residuals"])
    fitted = observed - residuals
    spread = residuals * math.sqrt(law["n"] / max(law["degrees_of_freedom"], 1))
    root = math.sqrt(5)
    low, high, share = (1 - root) / 2, (1 + root) / 2, (root + 1) / (2 * root)
    ratios = [fitted + spread * np.where(rng.random(law["n"]) < share, low, high) for _ in range(draws)]
    return {"kind": "cells", "block": None} | _refits(law, [np.maximum(ratio, 1e-6) for ratio in ratios])


def responses(law, params, steps):
    """What each draw of law["samples"] says at params, steps (arrays that broadcast), float64 `[draws, ...]`."""
    names = forms.coefficients(law["form"])
    drawn = (dict(zip(names, row, strict=True)) for row in law["samples"])
    return np.array([forms.evaluate(law["form"], values, params, steps) for values in drawn])


def _refits(law, ratios):
    """The law refitted to each of `ratios` (float64 `[n]`), and the 95 % interval of each coefficient over them."""
    problem = Problem.of_law(law)
    samples = []
    for ratio in ratios:
        refit = estimation.polish(problem.to(ratio), start_at(law, ratio), estimation.REFIT)
        samples.append(_sample(law, refit.params.valuesdict(), ratio))
    intervals = {}
    for i, name in enumerate(forms.coefficients(law["form"])):
        drawn = [row[i] for row in samples if row[i] is not None]
        low, high = np.percentile(drawn, TAILS).tolist() if drawn else (None, None)
        intervals[name] = {"low": low, "high": high}
    return {"draws": len(samples), "coefficients": intervals, "samples": samples}


def start_at(law, ratio):
    """The law's own coefficients, centred, as the start of a refit to `ratio`; a vanished term starts with a little."""
    c = values_of(law)
    k, little = c.get("k", 1.0), math.log(1e-4 * ratio.mean())
    at = {"a": max(c.get("a", 0.0), 1e-4 * ratio.mean()), "k": k}
    middles = {SIZE: math.log(law["P0"]), TRAINING: math.log(law["S0"])}
    for term in forms.variables_of(law["form"]):
        at[term.exponent] = k * (c[term.exponent] or 1.0)
    for term in forms.terms_of(law["form"]):
        centred = (math.log(c[term.scale]) - c[term.exponent] * middles[term]) if c[term.scale] else None
        at[term.centred_scale] = little if centred is None else k * centred
    if law["form"] == "multiplicative":
        at["u"] = math.log(c["b"]) - sum(c[term.exponent] * middle for term, middle in middles.items())
    return estimation.parameters(law["form"], at, ratio)


def _sample(law, at, ratio):
    """[a, b, alpha, ...], those of NATURAL that the form has, of one refit, whose centred parameters are `at`."""
    values = forms.natural(law["form"], at, law["P0"], law["S0"])
    vanished = [t for t in TERMS if t.centred_scale in at and math.exp(at[t.centred_scale]) < 1e-6 * ratio.mean()]
    for term in TERMS:
        if term in vanished:
            values |= {term.scale: 0.0, term.exponent: None}
        elif term.scale in values:
            values[term.scale] = math.exp(min(values[term.scale], 700.0))
    return [values[name] for name in forms.coefficients(law["form"])]
