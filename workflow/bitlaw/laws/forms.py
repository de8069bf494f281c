"""Forms of a scaling law of a response over two variables, and their estimation from many starts.

Far from the data a coefficient and its exponent trade off along a narrow valley, so every form is written in centred
parameters, with x = ln(P/P0), y = ln(S/S0) and P0, S0 the geometric means of the data:

    additive        a + e^(u - alpha x) + e^(v - beta y)                  = a + b P^-alpha + c S^-beta
    coupled         a + (e^((u - alpha x)/k) + e^((v - beta y)/k))^k      = a + (b P^-alpha' + c S^-beta')^k
    multiplicative  a + e^(u - alpha x - beta y)                          = a + b P^-alpha S^-beta

with alpha' = alpha/k and beta' = beta/k (so that alpha is what a term by itself falls with, whatever k is), and
additive0, coupled0: the same with a = 0. With the exponents given the additive and multiplicative forms are
linear (variable projection: Golub & Pereyra 1973), so starts come from non-negative least squares on a grid of
exponents; the coupled form is a linear one after (response - a)^(1/k).

Losses of the residuals r (of the response or of its logarithm): ls, the sum of r^2; huber, the sum of r^2/2 up to
delta and of delta (|r| - delta/2) beyond (Huber 1964; with logarithms, Hoffmann et al. 2022); l1, the sum of |r|.
"""

import itertools
import math
from typing import NamedTuple

import lmfit
import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import huber

from bitlaw import InputError

EQUATIONS = {
    "additive": "a + b P^-alpha + c S^-beta",
    "additive0": "b P^-alpha + c S^-beta",
    "coupled": "a + (b P^-alpha + c S^-beta)^k",
    "coupled0": "(b P^-alpha + c S^-beta)^k",
    "multiplicative": "a + b P^-alpha S^-beta",
}
CENTRED = {
    "additive": ("a", "u", "alpha", "v", "beta"),
    "additive0": ("u", "alpha", "v", "beta"),
    "coupled": ("a", "u", "alpha", "v", "beta", "k"),
    "coupled0": ("u", "alpha", "v", "beta", "k"),
    "multiplicative": ("a", "u", "alpha", "beta"),
}
LOSSES = ("ls", "huber", "l1")
BOUNDS = (1e-3, 5.0)  # exponents: below, a power of size is a constant; above, it is a step at the first size
POWERS = (0.05, 20.0)  # bounds of k
GRID = np.geomspace(0.05, 4.0, 9)
POLISHED = 10
SAME = 1e-6  # relative difference of objectives that count as the same minimum
FLOOR = 1e-12  # sums of squares below this share of the data's are rounding
REFIT = 1e-7  # tolerance of a refit to other data, from a law nearby: its last digits do not matter
WIDTHS = (100.0, 10.0, 1.0)  # a robust loss is approached from wider ones, in units of its own


class Estimate(NamedTuple):
    """The best of the polished starts: lmfit's result, its objective, and the share of starts that end there."""

    result: lmfit.minimizer.MinimizerResult
    objective: float
    share: float


def values(form, at, x, y):
    """The response of `form` at x, y (see the module), and its slopes in the parameters `at` `[n, len(at)]`."""
    size = at["u"] - at["alpha"] * x
    if form == "multiplicative":
        both = np.exp(size - at["beta"] * y)
        slopes = {"u": both, "alpha": -x * both, "beta": -y * both}
    else:
        training, k = at["v"] - at["beta"] * y, at.get("k", 1.0)
        joint = np.maximum(np.logaddexp(size / k, training / k), -700.0)  # both terms may have vanished
        both = np.exp(np.minimum(k * joint, 700.0))  # an optimiser may try what overflows
        by_size, by_training = (np.exp(term / k - joint) for term in (size, training))
        slopes = {"u": both * by_size, "v": both * by_training}
        slopes |= {"alpha": -x * slopes["u"], "beta": -y * slopes["v"]}
        if "k" in at:
            parts = (share * np.where(share > 0, term, 0.0) / k for share, term in
                     ((by_size, size), (by_training, training)))  # fmt: skip
            slopes["k"] = both * (joint - sum(parts))
    slopes["a"] = np.ones_like(x)
    return at.get("a", 0.0) + both, np.column_stack([slopes[name] for name in CENTRED[form]])


def natural(form, at, P0, S0):
    """The coefficients of the form as it is written, {name: value}, from the centred `at`; of b and c the logarithm."""
    k = at.get("k", 1.0)
    power = {name: at[name] / k for name in ("alpha", "beta")}
    out = {"b": at["u"] / k + power["alpha"] * math.log(P0)}
    if form == "multiplicative":
        out["b"] += power["beta"] * math.log(S0)
    else:
        out["c"] = at["v"] / k + power["beta"] * math.log(S0)
    return {name: at[name] for name in ("a", "k") if name in at} | out | power


def residuals(form, at, x, y, response, log):
    """fitted - observed, of logarithms when `log`, and the slopes."""
    fitted, slopes = values(form, at, x, y)
    if not log:
        return fitted - response, slopes
    return np.log(fitted / response), slopes / fitted[:, None]


def objective(r, loss, delta):
    """The loss of residuals `r`: see the module."""
    if loss == "ls":
        return float(r @ r)
    return float(huber(delta, r).sum() if loss == "huber" else np.abs(r).sum())


def centred(form):
    """Names of the form's centred parameters; InputError for a form that is none."""
    if form not in CENTRED:
        raise InputError(f"law: form {form!r}: choose one of {', '.join(CENTRED)}")
    return CENTRED[form]


def estimate(form, x, y, response, loss="ls", delta=1e-3, log=False, starts=None):
    """The best Estimate of `form`; x, y, response: float64 `[n]`. `starts` (lmfit parameters) replace the grid's."""
    if loss not in LOSSES:
        raise InputError(f"law: loss {loss!r}: choose one of {', '.join(LOSSES)}")
    starts = _starts(form, x, y, response) if starts is None else starts
    polished = [polish(form, x, y, response, start, loss, delta, log) for start in starts]
    found = [
        objective(residuals(form, result.params.valuesdict(), x, y, response, log)[0], loss, delta)
        for result in polished
    ]
    best = int(np.argmin(found))
    zero = np.log(response) if log else response
    same = SAME * found[best] + FLOOR * objective(zero, loss, delta)
    return Estimate(polished[best], found[best], float(np.mean(np.array(found) <= found[best] + same)))


def parameters(form, start, response):
    """lmfit's parameters of `form` with their bounds, at the dict `start`."""
    lowest, highest = math.log(1e-12 * response.max()), math.log(1e3 * response.max())
    bounds = {"a": (0.0, math.inf), "u": (lowest, highest), "v": (lowest, highest), "k": POWERS}
    out = lmfit.Parameters()
    for name in CENTRED[form]:
        low, high = bounds.get(name, BOUNDS)
        out.add(name, value=min(max(start[name], low), high), min=low, max=high)
    return out


def _starts(form, x, y, response):
    """The POLISHED best points of a grid, as lmfit parameters, best first."""
    found = []
    little = 1e-4 * response.mean()  # where the start has no term, a little of it, so that it has a gradient
    for (alpha, beta), (k, a) in itertools.product(itertools.product(GRID, GRID), _given(form, response)):
        size, training = np.exp(-alpha / k * x), np.exp(-beta / k * y)
        columns = [size * training] if form == "multiplicative" else [size, training]
        if form in ("additive", "multiplicative"):
            columns.insert(0, np.ones_like(x))
        design = np.column_stack(columns)
        solution = nnls(design, (response - a) ** (1 / k))[0]
        norm = np.linalg.norm(a + (design @ solution) ** k - response)
        start = {"a": max(a, little), "alpha": alpha, "beta": beta, "k": k}
        if form in ("additive", "multiplicative"):
            start["a"], solution = max(solution[0], little), solution[1:]
        scales = k * np.log(np.maximum(solution, little ** (1 / k)))
        found.append((norm, len(found), start | dict(zip(("u", "v"), scales, strict=False))))
    return [parameters(form, start, response) for *_, start in sorted(found)[:POLISHED]]


def _given(form, response):
    """(k, a) that the linear start takes as known."""
    if not form.startswith("coupled"):
        return [(1.0, 0.0)]
    constants = [0.0] if form == "coupled0" else [0.01 * response.min(), 0.5 * response.min(), 0.9 * response.min()]
    return list(itertools.product((0.25, 0.5, 1.0, 2.0, 4.0), constants))


def polish(form, x, y, response, start, loss="ls", delta=1e-3, log=False, tolerance=1e-11):
    """lmfit's result of least squares from `start`; a robust loss goes on from there to its own minimum."""
    names = CENTRED[form]

    def residual(p):
        return residuals(form, p.valuesdict(), x, y, response, log)[0]

    def slopes(p):
        free = [i for i, name in enumerate(names) if p[name].vary]
        return residuals(form, p.valuesdict(), x, y, response, log)[1][:, free]

    tight = {"ftol": tolerance, "xtol": tolerance, "gtol": 1e-2 * tolerance}
    tight |= {"x_scale": "jac", "max_nfev": 200, "Dfun": slopes}
    with np.errstate(invalid="ignore", divide="ignore"):  # roots of a singular covariance, which its users refuse
        result = lmfit.minimize(residual, start, method="least_squares", **tight)
        if loss == "ls":
            return result
        width = delta if loss == "huber" else 1e-6 * max(np.median(np.abs(residual(result.params))), 1e-12)
        for scale in WIDTHS if loss == "huber" else (1e4, 1e2, 1.0):
            robust = {"loss": "huber", "f_scale": scale * width}
            result = lmfit.minimize(residual, result.params, method="least_squares", **tight | robust)
        _descend(form, x, y, response, result.params, width, log)
    return result


def _descend(form, x, y, response, params, width, log):
    """From where least squares stopped, quasi-Newton steps on the robust loss itself; `params` is changed in place."""
    free = [name for name in CENTRED[form] if params[name].vary]
    columns = [CENTRED[form].index(name) for name in free]

    def loss(vector):
        r, slopes = residuals(form, params.valuesdict() | dict(zip(free, vector, strict=True)), x, y, response, log)
        return huber(width, r).sum() / width, slopes[:, columns].T @ np.clip(r, -width, width) / width

    bounds = [(params[name].min, params[name].max) for name in free]
    vector = np.array([params[name].value for name in free])
    before = math.inf
    for _ in range(20):
        found = minimize(loss, vector, jac=True, method="L-BFGS-B", bounds=bounds,
                         options={"ftol": 1e-15, "gtol": 1e-10, "maxcor": 30})  # fmt: skip
        vector = found.x
        if found.fun >= before * (1 - 1e-12):
            break
        before = found.fun
    for name, value in zip(free, vector, strict=True):
        params[name].value = value
