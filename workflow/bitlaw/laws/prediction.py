"""What a law says of a new cell: the response with an interval, or why it says nothing there.

The interval of a new cell holds every response that, added to the data as one more cell, the law could still be fitted
to: the least sum of squares with it stays within the F test's bound of that without it. For a linear law this is the
usual prediction interval; here it also holds what the exponents' long tails allow.
"""

import dataclasses
import math

import numpy as np
from scipy.optimize import minimize

from bitlaw import InputError
from bitlaw.analysis.block_bootstrap import TAILS
from bitlaw.laws import forms, profile_intervals
from bitlaw.laws.bootstrap import responses
from bitlaw.laws.estimation import Problem
from bitlaw.laws.fitting import predict
from bitlaw.laws.forms import ADDS_TERMS, BOUNDS, SIZE, TERMS
from bitlaw.laws.verdict import GREEK, supported

GRID = np.geomspace(*BOUNDS, 9)  # exponents of the starts
FAR = 3  # a new response this many times the largest of the data is no end of an interval


def new_cell(law, params, steps):
    """What `law` (a dict as `fitting.fit` returns it) says of a cell: {ratio, low, high, outside}.

    low, high: 95 % for a cell measured there, scatter included; high is None where nothing bounds it, both are None
    where the law holds nothing to tell them from. outside: sentences on what of it extrapolates. Raises InputError
    where there is no law, or where the cell lies outside the data in a direction in which nothing bounds what the
    law's exponent does.
    """
    if not (0 < params < math.inf and 0 < steps < math.inf):
        raise InputError(f"law: params {params:g} and steps {steps:g} must be positive and finite")
    known = supported(law)
    if known is None:
        raise InputError(f"law: no law: {'; '.join(law['verdict_reasons'])}; nothing to predict from")
    outside = []
    for term, name, value in zip(TERMS, ("params", "steps"), (params, steps), strict=True):
        if sentence := _outside(known, name, value):
            if reason := _why_not(law, known, term, value > max(known[name])):
                low, high = min(known[name]), max(known[name])
                raise InputError(f"law: {sentence}, and {reason}; ask within {low:g} to {high:g}")
            outside.append(sentence)
    out = {"ratio": float(predict(known, params, steps)), "low": None, "high": None, "outside": outside}
    if known["form"] in ADDS_TERMS and known["loss"] == "ls" and not known["log"] and known["degrees_of_freedom"] > 0:
        out["low"], out["high"] = _profile(known, params, steps, out["ratio"])
    elif known.get("samples"):
        scatter = np.array(known["residuals"]) * math.sqrt(known["n"] / max(known["degrees_of_freedom"], 1))
        out["low"], out["high"] = np.percentile(np.add.outer(responses(known, params, steps), scatter), TAILS).tolist()
    return out


def _outside(law, name, value):
    """A sentence where the value lies outside the data's; None within them."""
    data = law[name]
    if min(data) <= value <= max(data):
        return None
    side, end = ("above", max(data)) if value > max(data) else ("below", min(data))
    return f"{name} {value:g} is {max(value / end, end / value):.3g} times {side} the data, which end at {end:g}"


def _why_not(law, known, term, above):
    """Why nothing bounds the law beyond the data along `term`, as words; None where something does.

    Upwards the fall may go on for longer the smaller the exponent is, downwards it may be steeper the larger it is.
    """
    if term not in forms.variables_of(known["form"]):
        return "; ".join(law.get("verdict_reasons") or [f"the law has no term of {term.variable}"])
    end = "low" if above else "high"
    if known.get("profile", {}).get(term.exponent, {}).get(f"{end}_unbounded"):
        return f"the 95 % interval of {GREEK[term.exponent]} has no {'lower' if above else 'upper'} end"
    return None


def _profile(law, params, steps, ratio):
    """The ends of the interval of a new cell; see the module."""
    problem = Problem.of_law(law)
    weights = np.append(np.ones(law["n"]) if problem.weights is None else problem.weights, 1.0)
    x, y = np.append(problem.x, math.log(params / law["P0"])), np.append(problem.y, math.log(steps / law["S0"]))
    allowed = profile_intervals.most_squares(law["objective"], law["degrees_of_freedom"], problem.rounding)
    terms = forms.terms_of(law["form"])

    def left_with(response):
        more = np.append(problem.response, response)
        return _least_squares(dataclasses.replace(problem, x=x, y=y, response=more, weights=weights), terms)

    far = FAR * max(ratio, max(law["ratio"]))
    low, high = (profile_intervals.farthest(left_with, allowed, ratio, limit) for limit in (0.0, far))
    return low or 0.0, high


def _least_squares(problem, terms):
    """The least sum of squares of a constant and `terms`, non-negative, over all exponents within BOUNDS."""
    variables = [problem.x if term == SIZE else problem.y for term in terms]

    def left(log_exponents):
        exponents = np.exp(np.clip(log_exponents, *np.log(BOUNDS)))
        powers = [np.exp(-e * variable) for e, variable in zip(exponents, variables, strict=True)]
        return profile_intervals.squares_left(problem, *powers)

    starts = np.stack(np.meshgrid(*[np.log(GRID)] * len(terms)), axis=-1).reshape(-1, len(terms))
    start = min(starts, key=left)
    found = minimize(left, start, method="Nelder-Mead", options={"fatol": 1e-6 * left(start) + 1e-300, "maxiter": 200})
    return min(found.fun, left(start))
