"""Profile intervals: how far a coefficient can go while all else, refitted, keeps the fit within the F test's bound.

A point stays inside while the sum of squares is at most F(1, dof) above the least one (Bates & Watts 1988, 6.1): this
holds where a standard error, which sees only the bottom of the valley, does not.
"""

import math

import numpy as np
import scipy.stats
from scipy.optimize import brentq, least_squares, minimize, minimize_scalar, nnls

from bitlaw.analysis.block_bootstrap import LEVEL
from bitlaw.laws import forms
from bitlaw.laws.forms import BOUNDS, GRID

FINE = np.geomspace(*BOUNDS, 15)
UNKNOWN = {"low": None, "high": None, "low_unbounded": True, "high_unbounded": True}


def project(target, *columns):
    """Sum of squares left by the best non-negative constant and coefficients of `columns`."""
    return nnls(np.column_stack([np.ones_like(target), *columns]), target)[1] ** 2


def minimum(objective):
    """Least value of a function of one exponent over BOUNDS: grid, then Brent inside the best bracket."""
    values = [objective(exponent) for exponent in FINE]
    best = int(np.argmin(values))
    ends = np.log(FINE[[max(best - 1, 0), min(best + 1, len(FINE) - 1)]])
    found = minimize_scalar(lambda e: objective(math.exp(e)), bounds=ends, method="bounded", options={"xatol": 1e-7})
    return float(min(found.fun, values[best]))


def additive(best, x, y, ratio, floor):
    """{a, alpha, beta: {low, high, low_unbounded, high_unbounded}} of the additive form, by variable projection.

    best: lmfit's result; x, y: centred logarithms of P and S; floor: a sum of squares that is rounding.
    """
    if best.ndata == len(best.params):
        return {name: dict(UNKNOWN) for name in ("a", "alpha", "beta")}
    allowed = _allowed(best.chisqr, best.nfree, floor)
    value = best.params.valuesdict()

    def joint(exponents, a):
        alpha, beta = np.exp(np.clip(exponents, *np.log(BOUNDS)))
        return nnls(np.column_stack([np.exp(-alpha * x), np.exp(-beta * y)]), ratio - a)[1] ** 2

    coarse = np.log(GRID[::2])
    log_starts = [(al, be) for al in coarse for be in coarse] + [np.log([value["alpha"], value["beta"]])]

    def at_a(a):
        start = min(log_starts, key=lambda exponents: joint(exponents, a))
        return minimize(joint, start, args=(a,), method="Nelder-Mead", options={"fatol": 1e-3 * allowed}).fun

    def at_alpha(log_alpha):
        size = np.exp(-math.exp(log_alpha) * x)
        return minimum(lambda beta: project(ratio, size, np.exp(-beta * y)))

    def at_beta(log_beta):
        training = np.exp(-math.exp(log_beta) * y)
        return minimum(lambda alpha: project(ratio, np.exp(-alpha * x), training))

    out = {}
    low, high = _end(at_a, allowed, value["a"], 0.0), _end(at_a, allowed, value["a"], 2 * ratio.max())
    out["a"] = {"low": low or 0.0, "high": high, "low_unbounded": False, "high_unbounded": high is None}
    for name, scale, objective in (("alpha", "u", at_alpha), ("beta", "v", at_beta)):
        out[name] = dict(UNKNOWN)
        if value[scale] == -math.inf:
            continue
        for side, bound in zip(("low", "high"), BOUNDS, strict=True):
            at = _end(objective, allowed, math.log(value[name]), math.log(bound))
            out[name] |= {side: None if at is None else math.exp(at), f"{side}_unbounded": at is None}
    return out


def by_refit(form, best, x, y, ratio, floor):
    """The same of any form, of each of a, alpha, beta, k that it has, as it is written: the rest is refitted by steps.

    Each refit starts where the nearest one before it ended, so that it follows the valley.
    """
    at = best.params.valuesdict()
    names = [name for name in ("a", "alpha", "beta", "k") if name in at]
    scales = {"alpha": "u", "beta": "u" if form == "multiplicative" else "v"}
    if best.ndata <= len(at):
        return {name: dict(UNKNOWN) for name in names}
    allowed = _allowed(best.chisqr, best.ndata - len(at), floor)
    out = {}
    for name in names:
        k = at.get("k", 1.0) if name in scales else 1.0
        low, high = {"a": (0.0, 2 * ratio.max()), "k": forms.POWERS}.get(name, BOUNDS)
        out[name] = dict(UNKNOWN)
        if at.get(scales.get(name), 0.0) == -math.inf:
            continue
        turn, back = (float, float) if name == "a" else (math.log, math.exp)
        follow = _refitted(form, name, at, x, y, ratio)
        for side, limit in (("low", low), ("high", high)):
            start = min(max(at[name] / k, low), high)
            end = _end(lambda point, back=back, follow=follow: follow(back(point)), allowed, turn(start), turn(limit))
            out[name] |= {side: None if end is None else back(end), f"{side}_unbounded": end is None}
        if name == "a":  # nothing lies below 0: that end is an end
            out[name] |= {"low": out[name]["low"] or 0.0, "low_unbounded": False}
    return out


def _refitted(form, fixed, at, x, y, ratio):
    """A function of the coefficient `fixed`, as the form is written: the least sum of squares given it.

    Asked again it answers the same, though by then a better start may be known: a search for a root relies on that.
    """
    limits = forms.parameters(form, at, ratio)
    free = [name for name in forms.centred(form) if name != fixed]
    box = np.array([(limits[name].min, limits[name].max) for name in free]).T
    columns = [forms.centred(form).index(name) for name in free]
    scale = at.get("k", 1.0) if fixed in ("alpha", "beta") else 1.0
    known, costs = {at[fixed] / scale: np.clip([at[name] for name in free], *box)}, {}

    def placed(vector, value):
        found = dict(zip(free, vector, strict=True))
        scale = found["k"] if fixed in ("alpha", "beta") and "k" in found else 1.0
        return found | {fixed: value * scale}

    def objective(value):
        if value in costs:
            return costs[value]
        start = known[min(known, key=lambda other: abs(math.log((other + 1e-9) / (value + 1e-9))))]

        def residual(vector):
            return forms.residuals(form, placed(vector, value), x, y, ratio, False)[0]

        def slopes(vector):
            every = forms.residuals(form, placed(vector, value), x, y, ratio, False)[1]
            out = every[:, columns]
            if fixed in ("alpha", "beta") and "k" in free:  # the centred exponent moves with k
                out[:, free.index("k")] += value * every[:, forms.centred(form).index(fixed)]
            return out

        tight = {"x_scale": "jac", "ftol": 1e-8, "xtol": 1e-8, "gtol": 1e-10, "max_nfev": 60}
        found = least_squares(residual, start, slopes, box, **tight)
        known[value], costs[value] = found.x, 2 * found.cost
        return costs[value]

    return objective


def _allowed(squares, free, floor):
    """The largest sum of squares of a 95 % interval."""
    return squares * (1 + scipy.stats.f.ppf(LEVEL, 1, free) / free) + floor


def _end(objective, allowed, estimate, limit):
    """The farthest point towards `limit` still allowed; None when that is the limit itself."""
    points = np.linspace(estimate, limit, 13)
    within = [i for i in range(1, 13) if objective(points[i]) <= allowed]
    last = within[-1] if within else 0
    if last == 12:
        return None
    if objective(points[last]) >= allowed:  # noise-free data: the interval is the point
        return float(points[last])
    return float(brentq(lambda at: objective(at) - allowed, points[last], points[last + 1], xtol=1e-10))


def profile_curve(law):
    """How the fit depends on the exponent of size: {alpha, a, objective, allowed}, lists over 60 exponents.

    objective: the sum of squares with all else refitted, a: its constant, allowed: the objective at the edge of the
    95 % interval (null without degrees of freedom).
    """
    x, y = np.log(np.array(law["params"]) / law["P0"]), np.log(np.array(law["steps"]) / law["S0"])
    ratio = np.array(law["ratio"])
    out = {"alpha": np.geomspace(*BOUNDS, 60).tolist(), "a": [], "objective": [], "allowed": None}
    for alpha in out["alpha"]:
        size = np.exp(-alpha * x)

        def left(log_beta, size=size):
            return project(ratio, size, np.exp(-math.exp(log_beta) * y))

        found = minimize_scalar(left, bounds=np.log(BOUNDS), method="bounded")
        design = np.column_stack([np.ones_like(x), size, np.exp(-math.exp(found.x) * y)])
        out["a"].append(float(nnls(design, ratio)[0][0]))
        out["objective"].append(float(found.fun))
    if (free := law["degrees_of_freedom"]) > 0:
        out["allowed"] = _allowed(law["objective"], free, 0.0)
    return out
