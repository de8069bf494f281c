"""Profile intervals: how far a coefficient can go while all else, refitted, keeps the fit within the F test's bound.

A point stays inside while the sum of squares is at most F(1, dof) above the least one (Bates & Watts 1988, 6.1): this
holds where a standard error, which sees only the bottom of the valley, does not.
"""

import math

import numpy as np
import scipy.stats
from scipy.optimize import brentq, least_squares, minimize, minimize_scalar, nnls

from bitlaw.analysis.block_bootstrap import LEVEL
from bitlaw.laws import estimation, forms
from bitlaw.laws.estimation import GRID, Problem
from bitlaw.laws.forms import BOUNDS, SIZE, TERMS, TRAINING

FINE = np.geomspace(*BOUNDS, 15)  # exponents
POINTS = 12  # between an estimate and its limit, at which an interval's end is first looked for
STARTS = ((0.03, 0.3), (0.3, 0.3), (0.3, 0.03), (1.0, 1.0), (3.0, 0.5))  # exponents of size and training
UNKNOWN = {"low": None, "high": None, "low_unbounded": True, "high_unbounded": True}


def without_a_term(problem):
    """{b, c: the least sum of squares of the additive form without its size term, without its training term}."""
    return {
        SIZE.scale: _least(lambda beta: squares_left(problem, np.exp(-beta * problem.y))),
        TRAINING.scale: _least(lambda alpha: squares_left(problem, np.exp(-alpha * problem.x))),
    }


def constant(problem):
    """The sum of squares left by the best constant."""
    return squares_left(problem)


def instead_of_a_term(problem):
    """What takes the place of a falling power: {"rises", "levels": {b, c: (least sum of squares, coefficients more)}}.

    rises: a line in the logarithm that rises. levels: any function, a value for each that the variable takes.
    """
    out = {"rises": {}, "levels": {}}
    for term, own, other in ((SIZE, problem.x, problem.y), (TRAINING, problem.y, problem.x)):
        levels = (own == np.unique(own)[1:, None]).astype(float)
        rising = own - own.min()

        def with_levels(exponent, levels=levels, other=other):
            return _left_free(problem, levels, np.exp(-exponent * other))

        def with_a_line(exponent, rising=rising, other=other):
            return squares_left(problem, np.exp(-exponent * other), rising)

        out["rises"][term.scale] = _least(with_a_line), 1
        out["levels"][term.scale] = _least(with_levels), len(levels)
    return out


def additive(problem, best):
    """{a, alpha, beta: {low, high, low_unbounded, high_unbounded}} of a form that adds terms, by variable projection.

    The form is the additive one or one with a single term, which has no interval of the other exponent. best: lmfit's
    result of the least squares of `problem`.
    """
    terms = forms.terms_of(problem.form)
    if best.ndata == len(best.params):
        return {name: dict(UNKNOWN) for name in ("a", *(term.exponent for term in terms))}
    variables = {SIZE: problem.x, TRAINING: problem.y}
    at = best.params.valuesdict()
    allowed = most_squares(best.chisqr, best.nfree, problem.rounding)
    starts = [(alpha, beta) for alpha in GRID[::2] for beta in GRID[::2]]
    starts += [(at["alpha"], at["beta"])] if len(terms) == 2 else []

    def given_a(a):
        if len(terms) == 1:
            return _solved_given_a(problem, a, _single_given_a(problem, terms[0], a), terms)[1]
        start = min(starts, key=lambda exponents: _solved_given_a(problem, a, np.log(exponents))[1])
        return _given_a(problem, a, start, allowed).fun

    def given_exponent(term):
        def objective(log_exponent):
            own = np.exp(-math.exp(log_exponent) * variables[term])
            if len(terms) == 1:
                return squares_left(problem, own)
            (other,) = (variables[other] for other in terms if other != term)
            return _least(lambda exponent: squares_left(problem, own, np.exp(-exponent * other)))

        return objective

    low, high = (farthest(given_a, allowed, at["a"], limit) for limit in (0.0, 2 * problem.response.max()))
    out = {"a": {"low": low or 0.0, "high": high, "low_unbounded": False, "high_unbounded": high is None}}
    for term in terms:
        out[term.exponent] = interval = dict(UNKNOWN)
        if at[term.centred_scale] == -math.inf:
            continue
        for side, bound in zip(("low", "high"), BOUNDS, strict=True):
            end = farthest(given_exponent(term), allowed, math.log(at[term.exponent]), math.log(bound))
            interval |= {side: None if end is None else math.exp(end), f"{side}_unbounded": end is None}
    return out


def by_refit(problem, best):
    """The same of any form, of each of a, alpha, beta, k that it has, as natural coefficients: the rest is refitted.

    Each refit starts where the nearest one before it ended, so that it follows the valley.
    """
    at = best.params.valuesdict()
    names = [name for name in ("a", "alpha", "beta", "k") if name in at]
    if best.ndata <= len(at):
        return {name: dict(UNKNOWN) for name in names}
    allowed = most_squares(best.chisqr, best.ndata - len(at), problem.rounding)
    limits = {"a": (0.0, 2 * problem.response.max()), "k": forms.POWERS, "alpha": BOUNDS, "beta": BOUNDS}
    scale_of = {term.exponent: term.centred_scale for term in TERMS if term.centred_scale in at}
    if problem.form == "multiplicative":
        scale_of = {term.exponent: "u" for term in TERMS}
    out = {}
    for name in names:
        out[name] = interval = dict(UNKNOWN)
        if name in scale_of and at[scale_of[name]] == -math.inf:
            continue
        value = at[name] / at.get("k", 1.0) if name in scale_of else at[name]
        value = min(max(value, limits[name][0]), limits[name][1])
        objective, search = _refitted(problem, name, at), farthest if name == "a" else _farthest_in_log
        for side, limit in zip(("low", "high"), limits[name], strict=True):
            end = search(objective, allowed, value, limit)
            interval |= {side: end, f"{side}_unbounded": end is None}
        if name == "a":  # nothing lies below 0: that end is an end
            interval |= {"low": interval["low"] or 0.0, "low_unbounded": False}
    return out


def _refitted(problem, fixed, at):
    """A function of the natural coefficient `fixed`: the least sum of squares given it.

    at: the centred parameters at the optimum, where the first refit starts. Asked again the function answers the same,
    though by then a better start may be known: a search for a root relies on that.
    """
    limits = estimation.parameters(problem.form, at, problem.response)
    free = [name for name in problem.names if name != fixed]
    box = np.array([(limits[name].min, limits[name].max) for name in free]).T
    columns = [problem.names.index(name) for name in free]
    scaled_by_k = fixed in ("alpha", "beta") and "k" in free  # the centred exponent is k times the natural one
    value_at_best = at[fixed] / at["k"] if scaled_by_k else at[fixed]
    refits, costs = {value_at_best: np.clip([at[name] for name in free], *box)}, {}

    def placed(vector, value):
        free_values = dict(zip(free, vector, strict=True))
        return free_values | {fixed: value * free_values["k"] if scaled_by_k else value}

    def objective(value):
        if value in costs:
            return costs[value]
        nearest = min(refits, key=lambda other: abs(math.log((other + 1e-9) / (value + 1e-9))))

        def residual(vector):
            return problem.residuals(placed(vector, value))[0]

        def slopes(vector):
            every = problem.residuals(placed(vector, value))[1]
            out = every[:, columns]
            if scaled_by_k:
                out[:, free.index("k")] += value * every[:, problem.names.index(fixed)]
            return out

        tight = {"x_scale": "jac", "ftol": 1e-8, "xtol": 1e-8, "gtol": 1e-10, "max_nfev": 60}
        refit = least_squares(residual, refits[nearest], slopes, box, **tight)
        refits[value], costs[value] = refit.x, 2 * refit.cost
        return costs[value]

    return objective


def profile_curve(law):
    """How the fit depends on the exponent of size: {alpha, a, objective, allowed}, lists over 60 exponents.

    objective: the sum of squares with all else refitted, a: its constant, allowed: the objective at the edge of the
    95 % interval (null without degrees of freedom).
    """
    problem = Problem.of_law(law)
    out = {"alpha": np.geomspace(*BOUNDS, 60).tolist(), "a": [], "objective": [], "allowed": None}
    for alpha in out["alpha"]:
        size = np.exp(-alpha * problem.x)

        def given_log_beta(log_beta, size=size):
            return squares_left(problem, size, np.exp(-math.exp(log_beta) * problem.y))

        refit = minimize_scalar(given_log_beta, bounds=np.log(BOUNDS), method="bounded")
        design = np.column_stack([np.ones_like(size), size, np.exp(-math.exp(refit.x) * problem.y)])
        out["a"].append(float(nnls(problem.weighted(design), problem.weighted(problem.response))[0][0]))
        out["objective"].append(float(refit.fun))
    if (free := law["degrees_of_freedom"]) > 0:
        out["allowed"] = most_squares(law["objective"], free, 0.0)
    return out


def at_ends_of_a(law):
    """The natural coefficients of a law that adds terms, refitted with `a` at each end of its 95 % interval, low first.

    [{a, b, alpha, c, beta}], those that the form has; an end that is unbounded, or the estimate itself, has none.
    """
    problem, terms = Problem.of_law(law), forms.terms_of(law["form"])
    values = {name: entry["value"] for name, entry in law["coefficients"].items()}
    middles = {SIZE: law["P0"], TRAINING: law["S0"]}
    tolerance = 1e-6 * problem.response.mean()
    out = []
    for a in (law["profile"]["a"][end] for end in ("low", "high")):
        if a is None or abs(a - values["a"]) <= tolerance:
            continue
        at, exponents = {"a": a}, [values[term.exponent] or 0.5 for term in terms]
        if len(terms) == 2:
            refits = [_given_a(problem, a, start, law["objective"]) for start in (exponents, *STARTS)]
            best = min(refits, key=lambda refit: refit.fun).x
        else:
            best = _single_given_a(problem, terms[0], a)
        scales, _ = _solved_given_a(problem, a, best, terms)
        for term, scale, exponent in zip(terms, scales, _exponents(best), strict=True):
            at |= {term.scale: float(scale * middles[term] ** exponent), term.exponent: float(exponent)}
        out.append(at)
    return out


def _single_given_a(problem, term, a):
    """The logarithm of the exponent of a law of one term with this constant, by least squares, `[1]`."""
    grid = np.log(FINE)

    def left(log_exponent):
        return _solved_given_a(problem, a, np.array([log_exponent]), (term,))[1]

    best = int(np.argmin([left(point) for point in grid]))
    ends = grid[[max(best - 1, 0), min(best + 1, len(grid) - 1)]]
    return np.array([minimize_scalar(left, bounds=ends, method="bounded").x])


def _given_a(problem, a, exponents, squares):
    """scipy's result of the additive law's least squares with this constant: x, the log exponents, fun, the squares.

    exponents: where the search starts; squares: a sum of squares to be precise against.
    """

    def left(log_exponents):
        return _solved_given_a(problem, a, log_exponents)[1]

    return minimize(left, np.log(exponents), method="Nelder-Mead", options={"fatol": 1e-3 * squares})


def _solved_given_a(problem, a, log_exponents, terms=TERMS):
    """(each of `terms` at the middle of the data, sum of squares) of the best non-negative ones, exponents given."""
    variables = {SIZE: problem.x, TRAINING: problem.y}
    powers = [np.exp(-e * variables[term]) for term, e in zip(terms, _exponents(log_exponents), strict=True)]
    scales, norm = nnls(problem.weighted(np.column_stack(powers)), problem.weighted(problem.response - a))
    return scales, norm**2


def _exponents(logarithms):
    return np.exp(np.clip(logarithms, *np.log(BOUNDS)))


def squares_left(problem, *columns):
    """Sum of squares left by the best non-negative constant and coefficients of `columns`."""
    design = np.column_stack([np.ones_like(problem.response), *columns])
    return nnls(problem.weighted(design), problem.weighted(problem.response))[1] ** 2


def _left_free(problem, levels, column):
    """Sum of squares left by the best constants, of any sign, of `levels` `[m, n]`, and a coefficient of `column`."""
    design = problem.weighted(np.column_stack([np.ones_like(column), *levels, column]))
    target = problem.weighted(problem.response)
    residuals = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return float(residuals @ residuals)


def _least(objective):
    """Least value of a function of one exponent over BOUNDS: grid, then Brent inside the best bracket."""
    values = [objective(exponent) for exponent in FINE]
    best = int(np.argmin(values))
    ends = np.log(FINE[[max(best - 1, 0), min(best + 1, len(FINE) - 1)]])
    refined = minimize_scalar(lambda e: objective(math.exp(e)), bounds=ends, method="bounded", options={"xatol": 1e-7})
    return float(min(refined.fun, values[best]))


def most_squares(squares, free, rounding):
    """The largest sum of squares of a 95 % interval."""
    return squares * (1 + scipy.stats.f.ppf(LEVEL, 1, free) / free) + rounding


def farthest(objective, allowed, estimate, limit):
    """The farthest point from `estimate` towards `limit` still allowed; None when that is the limit itself."""
    points = np.linspace(estimate, limit, POINTS + 1)
    within = [i for i in range(1, POINTS + 1) if objective(points[i]) <= allowed]
    last = within[-1] if within else 0
    if last == POINTS:
        return None
    if objective(points[last]) >= allowed:  # noise-free data: the interval is the point
        return float(points[last])
    return float(brentq(lambda point: objective(point) - allowed, points[last], points[last + 1], xtol=1e-10))


def _farthest_in_log(objective, allowed, estimate, limit):
    """The same, searched in the logarithm of a positive coefficient."""
    end = farthest(lambda log: objective(math.exp(log)), allowed, math.log(estimate), math.log(limit))
    return None if end is None else math.exp(end)
