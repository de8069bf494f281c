"""Estimation of a law's centred parameters, from many starts.

With the exponents given the additive and multiplicative forms are linear (variable projection: Golub & Pereyra 1973),
so starts come from non-negative least squares on a grid of exponents; the coupled form is a linear one after
(response - a)^(1/k).

Losses of the residuals r (of the response or of its logarithm): ls, the sum of r^2; huber, the sum of r^2/2 up to
delta and of delta (|r| - delta/2) beyond (Huber 1964; with logarithms, Hoffmann et al. 2022); l1, the sum of |r|.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import lmfit
import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import huber

from bitlaw import InputError
from bitlaw.laws import forms

LOSSES = ("ls", "huber", "l1")
GRID = np.geomspace(0.05, 4.0, 9)  # exponents of the starts
POLISHED = 10  # starts that are followed to their minimum
SAME = 1e-6  # relative difference of objectives that count as the same minimum
FLOOR = 1e-12  # sums of squares below this share of the data's are rounding
REFIT = 1e-7  # tolerance of a refit to other data, from a law nearby: its last digits do not matter
WIDTHS = (100.0, 10.0, 1.0)  # a robust loss is approached from wider ones, in units of its own


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is fitted to what: a form of law, the data, and the loss that is made least.

    x, y: centred logarithms of P and S (see `forms`), response: what the law gives, all float64 `[n]`. delta: where
    huber turns linear. log: residuals are those of the logarithm of the response. weights: what residuals are
    multiplied by before the loss, float64 `[n]`; None: by 1.
    """

    form: str
    x: np.ndarray
    y: np.ndarray
    response: np.ndarray
    loss: str = "ls"
    delta: float = 1e-3
    log: bool = False
    weights: np.ndarray | None = None

    def __post_init__(self):
        if self.loss not in LOSSES:
            raise InputError(f"law: loss {self.loss!r}: choose one of {', '.join(LOSSES)}")
        if not (math.isfinite(self.delta) and self.delta > 0):
            raise InputError(f"law: delta {self.delta:g}: needs a positive, finite number")

    @classmethod
    def of_law(cls, law):
        """Least squares of the form of `law` (a dict as `fitting.fit` returns it) to its data."""
        x, y = np.log(np.array(law["params"]) / law["P0"]), np.log(np.array(law["steps"]) / law["S0"])
        weights = None if law.get("sigma") is None else relative_weights(law["sigma"])
        return cls(law["form"], x, y, np.array(law["ratio"]), weights=weights)

    @property
    def names(self):
        """Names of the centred parameters, in order."""
        return forms.centred(self.form)

    def to(self, response):
        """The same with another response."""
        return dataclasses.replace(self, response=response)

    def among(self, cells):
        """The same with those data alone that the boolean mask `cells` holds."""
        weights = None if self.weights is None else self.weights[cells]
        return dataclasses.replace(
            self, x=self.x[cells], y=self.y[cells], response=self.response[cells], weights=weights
        )

    def weighted(self, rows):
        """`rows`, float64 `[n]` or `[n, m]`, each times its weight."""
        if self.weights is None:
            return rows
        return rows * (self.weights if rows.ndim == 1 else self.weights[:, None])

    def residuals(self, at):
        """fitted - observed at the centred parameters `at`, float64 `[n]`, and the slopes, `[n, len(at)]`, weighted."""
        fitted, slopes = forms.values(self.form, at, self.x, self.y)
        if self.log:
            return self.weighted(np.log(fitted / self.response)), self.weighted(slopes / fitted[:, None])
        return self.weighted(fitted - self.response), self.weighted(slopes)

    def objective(self, at):
        """The loss at the centred parameters `at`."""
        return self._loss_of(self.residuals(at)[0])

    @property
    def rounding(self):
        """An objective that is rounding, no more."""
        return FLOOR * self._loss_of(self.weighted(np.log(self.response) if self.log else self.response))

    def _loss_of(self, residuals):
        if self.loss == "ls":
            return float(residuals @ residuals)
        return float(huber(self.delta, residuals).sum() if self.loss == "huber" else np.abs(residuals).sum())


def relative_weights(sigma):
    """1 / sigma, scaled so that the mean of its squares is 1, float64 `[n]`: sums of squares stay in their own unit."""
    weights = 1 / np.asarray(sigma, dtype=np.float64)
    return weights / math.sqrt(np.mean(weights**2))


class Estimate(NamedTuple):
    """The best of the polished starts: lmfit's result, its objective, and the share of starts that end there."""

    result: lmfit.minimizer.MinimizerResult
    objective: float
    share: float


def estimate(problem):
    """The best Estimate over the starts of a grid."""
    results = [polish(problem, start) for start in _starts(problem)]
    objectives = [problem.objective(result.params.valuesdict()) for result in results]
    best = int(np.argmin(objectives))
    same = SAME * objectives[best] + problem.rounding
    return Estimate(results[best], objectives[best], float(np.mean(np.array(objectives) <= objectives[best] + same)))


def parameters(form, start, response):
    """lmfit's parameters of `form` with their bounds, at the dict `start`."""
    lowest, highest = math.log(1e-12 * response.max()), math.log(1e3 * response.max())
    bounds = {"a": (0.0, math.inf), "u": (lowest, highest), "v": (lowest, highest), "k": forms.POWERS}
    out = lmfit.Parameters()
    for name in forms.CENTRED[form]:
        low, high = bounds.get(name, forms.BOUNDS)
        out.add(name, value=min(max(start[name], low), high), min=low, max=high)
    return out


def _starts(problem):
    """The POLISHED best points of a grid, as lmfit parameters, best first."""
    form, response = problem.form, problem.response
    linear, terms = "coupled" not in form and form != "additive0", forms.terms_of(form)
    grids = [GRID if name in problem.names else (1.0,) for name in ("alpha", "beta")]
    candidates = []
    little = 1e-4 * response.mean()  # where the start has no term, a little of it, so that it has a gradient
    for (alpha, beta), (k, a) in itertools.product(itertools.product(*grids), _given(form, response)):
        powers = {"u": np.exp(-alpha / k * problem.x), "v": np.exp(-beta / k * problem.y)}
        columns = [powers[term.centred_scale] for term in terms] or [powers["u"] * powers["v"]]
        if linear:
            columns.insert(0, np.ones_like(problem.x))
        design = np.column_stack(columns)
        solution = nnls(problem.weighted(design), problem.weighted((response - a) ** (1 / k)))[0]
        norm = np.linalg.norm(problem.weighted(a + (design @ solution) ** k - response))
        start = {"a": max(a, little), "alpha": alpha, "beta": beta, "k": k}
        if linear:
            start["a"], solution = max(solution[0], little), solution[1:]
        scales = k * np.log(np.maximum(solution, little ** (1 / k)))
        names = [term.centred_scale for term in terms] or ["u"]
        candidates.append((norm, len(candidates), start | dict(zip(names, scales, strict=True))))
    return [parameters(form, start, response) for *_, start in sorted(candidates)[:POLISHED]]


def projected(problem, params):
    """`params` with constant and scales at their least squares given the exponents, where the form adds terms.

    Near the least exponent a term is all but a constant, and an optimiser crawls along the valley between the two.
    """
    terms = [term for term in forms.terms_of(problem.form) if params[term.centred_scale].vary]
    if problem.form not in forms.ADDS_TERMS or problem.log or not (terms and params["a"].vary):
        return params
    variables = {forms.SIZE: problem.x, forms.TRAINING: problem.y}
    powers = [np.exp(-params[term.exponent].value * variables[term]) for term in terms]
    design = np.column_stack([np.ones_like(problem.response), *powers])
    a, *scales = nnls(problem.weighted(design), problem.weighted(problem.response))[0]
    out = params.copy()
    out["a"].set(value=a)
    for term, scale in zip(terms, scales, strict=True):
        lowest = out[term.centred_scale].min
        out[term.centred_scale].set(value=max(math.log(scale), lowest) if scale else lowest)
    return out


def _given(form, response):
    """[(k, a)] that the linear start takes as known."""
    if not form.startswith("coupled"):
        return [(1.0, 0.0)]
    constants = [0.0] if form == "coupled0" else [0.01 * response.min(), 0.5 * response.min(), 0.9 * response.min()]
    return list(itertools.product((0.25, 0.5, 1.0, 2.0, 4.0), constants))


def polish(problem, start, tolerance=1e-11):
    """lmfit's result from the parameters `start`: least squares, from where a robust loss goes on to its own minimum.

    What does not vary in `start` stays where it is.
    """

    def residual(p):
        return problem.residuals(p.valuesdict())[0]

    def slopes(p):
        free = [i for i, name in enumerate(problem.names) if p[name].vary]
        return problem.residuals(p.valuesdict())[1][:, free]

    tight = {"ftol": tolerance, "xtol": tolerance, "gtol": 1e-2 * tolerance}
    tight |= {"x_scale": "jac", "max_nfev": 200, "Dfun": slopes}
    with np.errstate(invalid="ignore", divide="ignore"):  # roots of a singular covariance, which its users refuse
        result = lmfit.minimize(residual, start, method="least_squares", **tight)
        if problem.loss == "ls":
            return result
        by_huber = problem.loss == "huber"  # l1 is a huber that turns linear next to nothing
        width = problem.delta if by_huber else 1e-6 * max(np.median(np.abs(residual(result.params))), 1e-12)
        for scale in WIDTHS if by_huber else (1e4, 1e2, 1.0):
            robust = {"loss": "huber", "f_scale": scale * width}
            result = lmfit.minimize(residual, result.params, method="least_squares", **tight | robust)
        _descend(problem, result.params, width)
    return result


def _descend(problem, params, width):
    """From where least squares stopped, quasi-Newton steps on huber's loss itself; `params` is changed in place."""
    free = [name for name in problem.names if params[name].vary]
    columns = [problem.names.index(name) for name in free]

    def loss(vector):
        r, slopes = problem.residuals(params.valuesdict() | dict(zip(free, vector, strict=True)))
        return huber(width, r).sum() / width, slopes[:, columns].T @ np.clip(r, -width, width) / width

    bounds = [(params[name].min, params[name].max) for name in free]
    vector = np.array([params[name].value for name in free])
    before = math.inf
    for _ in range(20):
        reached = minimize(loss, vector, jac=True, method="L-BFGS-B", bounds=bounds,
                           options={"ftol": 1e-15, "gtol": 1e-10, "maxcor": 30})  # fmt: skip
        vector = reached.x
        if reached.fun >= before * (1 - 1e-12):
            break
        before = reached.fun
    for name, value in zip(free, vector, strict=True):
        params[name].value = value
