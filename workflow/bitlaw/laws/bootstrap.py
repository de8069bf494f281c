"""How far a law's coefficients move when its data are drawn again: bootstrap over chunks, wild bootstrap over cells.

The chunk bootstrap says what another sample of chunks would have given. The wild bootstrap (Wu 1986; two-point
weights of Mammen 1993) says what other residuals of the observed size would have given, so it holds the misfit of the
form, too, and needs no chunks. Both draw from the law's own neighbourhood: a refit starts at the law.
"""

import math

import numpy as np

from bitlaw import InputError
from bitlaw.analysis.block_bootstrap import BLOCK, DRAWS, TAILS, block_of, redraws
from bitlaw.laws import forms
from bitlaw.laws.fitting import NATURAL, evaluate, predict


def over_chunks(law, chunks, draws=DRAWS, block=BLOCK, seed=0):
    """Refits of `law` to means over chunks drawn again, in blocks of neighbours, the same chunks for every cell.

    chunks: float `[cells, chunks]`, the ratio of each chunk (NaN where dropped), cells in the order of the law's data.
    Returns {"kind", "draws", "block", "coefficients": {name: {low, high}} (95 %), "samples": [[a, b, ...], ...]}; a
    term that vanished in a draw has scale 0 and no exponent (None).
    """
    chunks = np.asarray(chunks, dtype=np.float64)
    if chunks.ndim != 2 or len(chunks) != law["n"]:
        raise InputError(f"law: ratios of chunks have shape {chunks.shape}, needs [{law['n']} cells, chunks]")
    count = chunks.shape[1]
    ratios = [np.nanmean(chunks[:, drawn], axis=1) for drawn in redraws(count, draws, block, seed)]
    return {"kind": "chunks", "block": block_of(count, block)} | _refits(law, ratios)


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


def interval(law, params, steps):
    """What `law` says of a new cell: {ratio, low, high, outside}.

    low, high: 95 % of every refit of the bootstrap plus every residual (null without a bootstrap): the coefficients'
    uncertainty and the scatter about the law; that the form itself may not hold there is not in it. outside: which of
    params and steps lie outside the data, as sentences.
    """
    if not (params > 0 and steps > 0):
        raise InputError(f"law: params {params:g} and steps {steps:g} must be positive")
    out = {"ratio": float(predict(law, params, steps)), "low": None, "high": None, "outside": []}
    if law.get("samples"):
        names = [name for name in NATURAL if name in law["coefficients"]]
        drawn = [
            float(evaluate(law["form"], dict(zip(names, row, strict=True)), params, steps)) for row in law["samples"]
        ]
        scatter = np.array(law["residuals"]) * math.sqrt(law["n"] / max(law["degrees_of_freedom"], 1))
        out["low"], out["high"] = np.percentile(np.add.outer(drawn, scatter), TAILS).tolist()
    for name, at, known in (("params", params, law["params"]), ("steps", steps, law["steps"])):
        if not min(known) <= at <= max(known):
            times = at / max(known) if at > max(known) else min(known) / at
            side = "above" if at > max(known) else "below"
            end = max(known) if side == "above" else min(known)
            out["outside"].append(f"{name} {at:g} is {times:.3g} times {side} the data, which end at {end:g}")
    return out


def _refits(law, ratios):
    x, y = np.log(np.array(law["params"]) / law["P0"]), np.log(np.array(law["steps"]) / law["S0"])
    samples = []
    for ratio in ratios:
        found = forms.polish(law["form"], x, y, ratio, start_at(law, ratio), tolerance=forms.REFIT)
        samples.append(_coefficients(law, found.params.valuesdict(), ratio))
    names = [name for name in NATURAL if name in law["coefficients"]]
    intervals = {}
    for i, name in enumerate(names):
        known = [row[i] for row in samples if row[i] is not None]
        low, high = np.percentile(known, TAILS) if known else (None, None)
        intervals[name] = {"low": None if low is None else float(low), "high": None if high is None else float(high)}
    return {"draws": len(samples), "coefficients": intervals, "samples": samples}


def start_at(law, ratio):
    """The law's own coefficients, centred, as the start of a refit; a vanished term starts with a little."""
    c = {name: entry["value"] for name, entry in law["coefficients"].items()}
    k, little = c.get("k", 1.0), math.log(1e-4 * ratio.mean())
    alpha, beta = (c[name] or 1.0 for name in ("alpha", "beta"))
    at = {"a": max(c.get("a", 0.0), 1e-4 * ratio.mean()), "alpha": k * alpha, "beta": k * beta, "k": k}
    at["u"] = k * (math.log(c["b"]) - alpha * math.log(law["P0"])) if c["b"] else little
    if law["form"] == "multiplicative":
        at["u"] -= beta * math.log(law["S0"])
    else:
        at["v"] = k * (math.log(c["c"]) - beta * math.log(law["S0"])) if c["c"] else little
    return forms.parameters(law["form"], at, ratio)


def _coefficients(law, at, ratio):
    """[a, b, alpha, ...] of one refit: those of NATURAL that the form has."""
    value = forms.natural(law["form"], at, law["P0"], law["S0"])
    gone = {"b": "u" in at and math.exp(at["u"]) < 1e-6 * ratio.mean()}
    gone["c"] = "v" in at and math.exp(at["v"]) < 1e-6 * ratio.mean()
    row = []
    for name in (name for name in NATURAL if name in value):
        scale = {"alpha": "b", "beta": "c"}.get(name, name)
        if gone.get(scale):
            row.append(0.0 if name == scale else None)
        elif name in ("b", "c"):
            row.append(math.exp(min(value[name], 700.0)))
        else:
            row.append(value[name])
    return row
