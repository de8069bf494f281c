"""Fit a scaling law to a table of compression ratios and say how well it is known.

Form "additive":  CR(P, S) = a + b P^-alpha + c S^-beta,  all of a, b, c >= 0, alpha and beta in BOUNDS.

Far from the data, b and alpha trade off along a narrow valley, so lmfit sees the centred parameters
    CR = a + e^u (P/P0)^-alpha + e^v (S/S0)^-beta,   u = ln(b P0^-alpha),  v = ln(c S0^-beta),
P0 and S0 being the geometric means of the data. With the exponents given the form is linear; starts and
profiles use this (variable projection: Golub & Pereyra 1973) with non-negative least squares.
"""

import math

import lmfit
import numpy as np
import scipy.stats
from scipy.optimize import brentq, minimize, minimize_scalar, nnls

from bitlaw import InputError

EQUATION = "CR = a + b P^-alpha + c S^-beta"
CENTRED = ("a", "u", "alpha", "v", "beta")
TERMS = {"b": ("u", "alpha"), "c": ("v", "beta")}
GREEK = {"alpha": "α", "beta": "β"}
BOUNDS = (1e-3, 5.0)  # exponents: below, a power of size is a constant; above, it is a step at the first size
STARTS = np.geomspace(0.05, 4.0, 9)
GRID = np.geomspace(*BOUNDS, 15)
POLISHED = 10
SAME = 1e-6  # relative difference of objectives that count as the same minimum
FLOOR = 1e-12  # sums of squares below this share of the data's are rounding
SINGULAR = 1e8  # condition number beyond which float64 normal equations hold no digit
LEVEL = 0.95


def fit(params, steps, ratio, params_kind="total"):
    """Fit the additive law by least squares on the ratio; return a dict ready for JSON (no NaN, no infinity).

    params, steps, ratio: arrays `[n]`, positive: parameters, training steps, compression ratio (1 = raw bytes).
    params_kind: which parameters these are; recorded, not interpreted. Raises InputError.

    Keys of the result:
      form, equation, params_kind, n, P0, S0
      coefficients  {a, b, alpha, c, beta}: {value, stderr, stderr_log, reason}. stderr: one standard error
                    (from lmfit's covariance; delta method for b, c), or null with the reason. stderr_log, for
                    b and c: error of the natural logarithm; beyond 1, `stderr` would mean nothing and is null.
      profile       {a, alpha, beta}: {low, high, low_unbounded, high_unbounded}, 95 % (null where unbounded;
                    a's low end is 0 at least, which is the edge of what a can be)
      verdict       "law" | "no law";  verdict_reasons: why there is none (rising at most sizes or steps, a term
                    that vanished, scatter alone, no degree of freedom)
      term_tests    {b, c, both}: p of the F test of the law against one without its size term, without its training
                    term, a constant (null without degrees of freedom); informal, as the terms are bounded
      objective     sum of squared residuals;  rmse (divided by n), r2 (null for constant data)
      residuals     observed - fitted, in the order given
      degrees_of_freedom, share_agreeing (polished starts that end at the best objective), bounds_hit (["a = 0"])
      correlation   {names, matrix} of the free centred parameters, or null
      condition_number of the Jacobian in these, columns scaled to length 1 (null when infinite)
      warnings      sentences;  versions {lmfit, scipy}
    """
    params, steps, ratio = _checked(params, steps, ratio)
    P0, S0 = (float(np.exp(np.log(column).mean())) for column in (params, steps))
    x, y = params / P0, steps / S0
    n, total = len(ratio), float(ratio @ ratio)

    polished = [_polish(x, y, ratio, start) for start in _starts(x, y, ratio)]
    best = min(polished, key=lambda result: result.chisqr)
    tolerance = SAME * best.chisqr + FLOOR * total
    share = float(np.mean([result.chisqr <= best.chisqr + tolerance for result in polished]))
    # What is lost without a term: nothing, if the data do not fall with it.
    without = {"b": _minimum(lambda beta: _project(ratio, y**-beta)), "c": _minimum(lambda al: _project(ratio, x**-al))}
    best, bounds_hit = _hold_bounds(best, x, y, ratio, without, tolerance)

    free, covariance, condition = _covariance(best, x, y)
    coefficients = _coefficients(best, covariance, free, P0, S0, bounds_hit)
    residuals = ratio - _additive({name: c["value"] for name, c in coefficients.items()}, params, steps)
    objective, deviation = float(residuals @ residuals), float(((ratio - ratio.mean()) ** 2).sum())
    r2 = 1 - objective / deviation if deviation > FLOOR * total else None

    law = {"form": "additive", "equation": EQUATION, "params_kind": params_kind, "n": n, "P0": P0, "S0": S0}
    law |= {"coefficients": coefficients, "profile": _profiles(best, x, y, ratio, FLOOR * total)}
    law |= {"objective": objective, "rmse": math.sqrt(objective / n), "r2": r2, "residuals": residuals.tolist()}
    law |= {"degrees_of_freedom": int(best.nfree), "share_agreeing": share, "bounds_hit": bounds_hit}
    law |= {"condition_number": condition, "correlation": None}
    if covariance is not None and (sigma := np.sqrt(np.diag(covariance))).all():  # 0: the fit is exact
        law["correlation"] = {"names": free, "matrix": (covariance / np.outer(sigma, sigma)).tolist()}
    law["term_tests"] = _term_tests(ratio, objective, without | {"both": deviation}, FLOOR * total)
    law["verdict_reasons"] = _why_no_law(params, steps, ratio, law)
    law["verdict"] = "no law" if law["verdict_reasons"] else "law"
    law["warnings"] = _warnings(law)
    law["versions"] = {"lmfit": lmfit.__version__, "scipy": scipy.__version__}
    return law


def predict(law, params, steps):
    """Ratios of `law` at params, steps (arrays that broadcast, positive), float64. Raises InputError."""
    if law["form"] != "additive":
        raise InputError(f"law of form {law['form']!r}: only 'additive' can be evaluated")
    return _additive({name: c["value"] for name, c in law["coefficients"].items()}, params, steps)


def describe(law):
    """The law for people: numbers, errors, intervals and fit on one line; says so when there is no law."""
    ends = {name: [span[end] for end in ("low", "high")] for name, span in law["profile"].items()}
    shown = {name: ["unbounded" if end is None else f"{end:.3g}" for end in pair] for name, pair in ends.items()}
    intervals = "95 %: " + ", ".join(f"{GREEK.get(name, name)} {low} to {high}" for name, (low, high) in shown.items())
    quality = f"n {law['n']}, RMSE {law['rmse']:.2g}" + ("" if law["r2"] is None else f", R² {law['r2']:.3f}")
    verdict = "no law: " + "; ".join(law["verdict_reasons"]) + "; best fit " if law["verdict"] != "law" else ""
    return f"{verdict}{_written(law, plain=True)} ({errors(law)}; {intervals}; {quality})"


def equation(law):
    """The law with its numbers as mathtext, for figures."""
    return f"${_written(law, plain=False)}$"


def errors(law):
    """Standard errors as plain text: "a ± 0.03, ln b ± 4.6, α ± 0.23, ..."; "?" where there is none."""
    parts = []
    for name, c in law["coefficients"].items():
        shown = GREEK.get(name, name)
        if c["stderr"] is not None:
            parts.append(f"{shown} ± {_two(c['stderr'])}")
        elif c["stderr_log"] is not None:
            parts.append(f"ln {shown} ± {_two(c['stderr_log'])}")
        elif c["value"] is not None:
            parts.append(f"{shown} ± ?")
    return ", ".join(parts)


def _two(number):
    return f"{number:#.2g}".rstrip(".") if number < 100 else f"{number:.2g}"


def _written(law, plain):
    c = {name: entry["value"] for name, entry in law["coefficients"].items()}
    out = f"CR = {c['a']:.3f}" if plain else rf"\mathrm{{CR}} = {c['a']:.3f}"
    for scale, symbol, power in (("b", "P", "alpha"), ("c", "S", "beta")):
        if not c[scale]:
            continue
        digits, exponent = f"{c[scale]:.2e}".split("e")
        if -3 <= int(exponent) <= 4:
            number = f"{c[scale]:#.3g}".rstrip(".") if int(exponent) < 3 else f"{float(f'{c[scale]:.3g}'):.0f}"
        else:
            number = f"{digits}e{int(exponent)}" if plain else rf"{digits}\!\times\!10^{{{int(exponent)}}}"
        out += f" + {number} {symbol}^-{c[power]:.3f}" if plain else rf" + {number}\,{symbol}^{{-{c[power]:.3f}}}"
    return out


def _checked(params, steps, ratio):
    columns = {"params": params, "steps": steps, "ratio": ratio}
    for name, values in columns.items():
        columns[name] = values = np.asarray(values, dtype=np.float64)
        if values.ndim != 1 or len(values) != np.size(params):
            raise InputError(f"law: {name} has shape {values.shape}, needs the length of params, {np.size(params)}")
        if bad := [float(value) for value in values if not (math.isfinite(value) and value > 0)]:
            raise InputError(f"law: {name} holds {bad[0]}; a law needs finite, positive numbers: drop that cell")
    cells = len({*zip(columns["params"], columns["steps"], strict=True)})
    if cells < len(CENTRED):
        raise InputError(f"law: {cells} distinct cells; {len(CENTRED)} coefficients need at least {len(CENTRED)}")
    for name in ("params", "steps"):
        if (distinct := len(np.unique(columns[name]))) < 3:
            raise InputError(f"law: {name} takes {distinct} distinct values; a constant and a power need at least 3")
    return columns.values()


def _additive(c, params, steps):
    params, steps = np.asarray(params, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    out = c["a"] + np.zeros(np.broadcast(params, steps).shape)
    for scale, power, at in ((c["b"], c["alpha"], params), (c["c"], c["beta"], steps)):
        if scale:  # a vanished term has no exponent
            out = out + np.exp(math.log(scale) - power * np.log(at))
    return out


def _project(target, *columns):
    """Sum of squares left by the best non-negative constant and coefficients of `columns`."""
    return nnls(np.column_stack([np.ones_like(target), *columns]), target)[1] ** 2


def _minimum(objective):
    """Least value of a function of one exponent over BOUNDS: grid, then Brent inside the best bracket."""
    values = [objective(exponent) for exponent in GRID]
    best = int(np.argmin(values))
    ends = np.log(GRID[[max(best - 1, 0), min(best + 1, len(GRID) - 1)]])
    found = minimize_scalar(lambda e: objective(math.exp(e)), bounds=ends, method="bounded", options={"xatol": 1e-7})
    return float(min(found.fun, values[best]))


def _starts(x, y, ratio):
    """The POLISHED best points of the grid of exponents, as lmfit parameters, best first."""
    found = []
    for alpha in STARTS:
        for beta in STARTS:
            design = np.column_stack([np.ones_like(x), x**-alpha, y**-beta])
            (a, B, C), norm = nnls(design, ratio)
            found.append((norm, a, alpha, beta, B, C))
    lowest, highest = math.log(1e-12 * ratio.max()), math.log(1e3 * ratio.max())
    little = 1e-4 * ratio.mean()  # where the start has no term, a little of it, so that it has a gradient
    starts = []
    for _, a, alpha, beta, B, C in sorted(found)[:POLISHED]:
        start = lmfit.Parameters()
        start.add("a", value=max(a, little), min=0.0)
        start.add("u", value=math.log(max(B, little)), min=lowest, max=highest)
        start.add("alpha", value=alpha, min=BOUNDS[0], max=BOUNDS[1])
        start.add("v", value=math.log(max(C, little)), min=lowest, max=highest)
        start.add("beta", value=beta, min=BOUNDS[0], max=BOUNDS[1])
        starts.append(start)
    return starts


def _terms(p, x, y):
    size, training = p["u"].value - p["alpha"].value * np.log(x), p["v"].value - p["beta"].value * np.log(y)
    return np.exp(size), np.exp(training)


def _jacobian(p, x, y):
    size, training = _terms(p, x, y)
    slopes = (np.ones_like(x), size, -size * np.log(x), training, -training * np.log(y))
    return np.column_stack([slope for name, slope in zip(CENTRED, slopes, strict=True) if p[name].vary])


def _polish(x, y, ratio, start):
    def residual(p):
        return p["a"].value + sum(_terms(p, x, y)) - ratio

    tight = {"ftol": 1e-11, "xtol": 1e-11, "gtol": 1e-13, "x_scale": "jac", "max_nfev": 100}
    with np.errstate(invalid="ignore"):  # lmfit takes roots of a singular covariance; `_covariance` refuses it
        return lmfit.minimize(residual, start, method="least_squares", Dfun=lambda p: _jacobian(p, x, y), **tight)


def _hold_bounds(best, x, y, ratio, without, tolerance):
    """Fix what sits on a bound there and fit the rest again, so that the covariance is that of the rest.

    An interior method only nears a bound: on it is what can be put there at no loss.
    """
    trials = {f"{scale} = 0": {TERMS[scale][0]: -math.inf, TERMS[scale][1]: 1.0} for scale in TERMS}
    trials |= {f"{name} = {bound:g}": {name: bound} for name in ("alpha", "beta") for bound in BOUNDS}
    trials |= {"a = 0": {"a": 0.0}}
    hit = []
    for trial, values in trials.items():
        held = best.params.copy()
        if not all(held[name].vary for name in values) or len(best.var_names) == len(values):
            continue  # held already, or nothing would remain to fit
        if without.get(trial[0], 0.0) > best.chisqr + tolerance:
            continue
        for name, value in values.items():
            held[name].set(value=value, min=min(held[name].min, value), vary=False)
        again = _polish(x, y, ratio, held)
        if again.chisqr <= best.chisqr + tolerance:
            best = again
            hit.append(trial)
    return best, hit


def _covariance(best, x, y):
    """Names of the free parameters, their covariance or None, and the condition number of the scaled Jacobian."""
    free = list(best.var_names)
    jacobian = _jacobian(best.params, x, y)
    condition = float(np.linalg.cond(jacobian / np.linalg.norm(jacobian, axis=0)))
    covariance = getattr(best, "covar", None)
    usable = covariance is not None and best.ndata > len(CENTRED) and condition < SINGULAR
    usable = usable and bool(np.all(np.diag(covariance) >= 0))
    return free, covariance if usable else None, condition if math.isfinite(condition) else None


def _coefficients(best, covariance, free, P0, S0, bounds_hit):
    """See `fit`. Delta method: ln b = u + alpha ln P0, so var ln b = g' cov g with g = 1 at u, ln P0 at alpha."""
    value = best.params.valuesdict()

    def entry(name, gradient):
        """Value and error of a coefficient that is (b, c: whose logarithm is) this sum of centred parameters."""
        logarithm = name in TERMS
        number = sum(g * value[k] for k, g in gradient.items())
        out = {"value": math.exp(number) if logarithm else number, "stderr": None, "stderr_log": None, "reason": None}
        if held := [k for k in gradient if k not in free]:
            out["reason"] = f"{held[0]} is at its bound"
        elif best.ndata == len(CENTRED):
            out["reason"] = "no degrees of freedom"
        elif covariance is None:
            out["reason"] = "not identified: singular covariance or no convergence"
        else:
            g = np.array([gradient.get(k, 0.0) for k in free])
            error = float(np.sqrt(g @ covariance @ g))
            if not logarithm:
                return out | {"stderr": error}
            out["stderr_log"] = error
            if error > 1:
                out["reason"] = f"not identified: the error of its logarithm is {error:.2g}"
            else:
                out["stderr"] = out["value"] * error
        return out

    out = {"a": entry("a", {"a": 1.0})}
    for scale, centre in (("b", P0), ("c", S0)):
        log_scale, power = TERMS[scale]
        if f"{scale} = 0" in bounds_hit:
            gone = {"stderr": None, "stderr_log": None, "reason": "its term vanished"}
            out |= {scale: {"value": 0.0, **gone}, power: {"value": None, **gone}}
        else:
            out[scale] = entry(scale, {log_scale: 1.0, power: math.log(centre)})
            out[power] = entry(power, {power: 1.0})
    return out


def _profiles(best, x, y, ratio, floor):
    """Where the objective, all else refitted, stays within F(1, dof) of the best (Bates & Watts 1988, 6.1)."""
    unknown = {"low": None, "high": None, "low_unbounded": True, "high_unbounded": True}
    if best.ndata == len(CENTRED):
        return {name: dict(unknown) for name in ("a", "alpha", "beta")}
    allowed = best.chisqr * (1 + scipy.stats.f.ppf(LEVEL, 1, best.nfree) / best.nfree) + floor
    value = best.params.valuesdict()

    def joint(exponents, a):
        alpha, beta = np.exp(np.clip(exponents, *np.log(BOUNDS)))
        return nnls(np.column_stack([x**-alpha, y**-beta]), ratio - a)[1] ** 2

    coarse = np.log(STARTS[::2])
    log_starts = [(al, be) for al in coarse for be in coarse] + [np.log([value["alpha"], value["beta"]])]

    def at_a(a):
        start = min(log_starts, key=lambda exponents: joint(exponents, a))
        return minimize(joint, start, args=(a,), method="Nelder-Mead", options={"fatol": 1e-3 * allowed}).fun

    def at_alpha(log_alpha):
        size = x ** -math.exp(log_alpha)
        return _minimum(lambda beta: _project(ratio, size, y**-beta))

    def at_beta(log_beta):
        training = y ** -math.exp(log_beta)
        return _minimum(lambda alpha: _project(ratio, x**-alpha, training))

    def end(objective, estimate, limit):
        """The farthest point towards `limit` still allowed; None when that is the limit itself."""
        points = np.linspace(estimate, limit, 13)
        within = [i for i in range(1, 13) if objective(points[i]) <= allowed]
        last = within[-1] if within else 0
        if last == 12:
            return None
        if objective(points[last]) >= allowed:  # noise-free data: the interval is the point
            return float(points[last])
        return float(brentq(lambda at: objective(at) - allowed, points[last], points[last + 1], xtol=1e-7))

    out = {}
    low, high = end(at_a, value["a"], 0.0), end(at_a, value["a"], 2 * ratio.max())
    out["a"] = {"low": low or 0.0, "high": high, "low_unbounded": False, "high_unbounded": high is None}
    for name, scale, objective in (("alpha", "u", at_alpha), ("beta", "v", at_beta)):
        out[name] = dict(unknown)
        if value[scale] == -math.inf:
            continue
        for side, bound in zip(("low", "high"), BOUNDS, strict=True):
            at = end(objective, math.log(value[name]), math.log(bound))
            out[name] |= {side: None if at is None else math.exp(at), f"{side}_unbounded": at is None}
    return out


def _term_tests(ratio, objective, without, floor):
    """p values of the F tests of the law against no size term (b), no training term (c), a constant (both)."""
    dof = len(ratio) - len(CENTRED)
    if dof == 0:
        return dict.fromkeys(without)
    numbers = {"b": 2, "c": 2, "both": 4}
    gains = {term: max(left - objective, 0.0) / numbers[term] for term, left in without.items()}
    return {t: float(scipy.stats.f.sf(gain / (objective + floor) * dof, numbers[t], dof)) for t, gain in gains.items()}


def _why_no_law(params, steps, ratio, law):
    """Reasons to refuse the law; none when the ratio falls with size and with training, beyond its scatter."""
    reasons = []
    directions = [("c", "training", steps, params, "sizes"), ("b", "size", params, steps, "steps")]
    for scale, what, at, others, names in directions:
        groups = [others == other for other in np.unique(others)]
        groups = [group for group in groups if len(np.unique(at[group])) > 1]
        rising = sum(np.polyfit(np.log(at[group]), ratio[group], 1)[0] > 0 for group in groups)
        if 2 * rising > len(groups):
            reasons.append(f"ratio rises with {what} at {rising} of {len(groups)} {names}")
        elif f"{scale} = 0" in law["bounds_hit"]:
            reasons.append(f"ratio does not fall with {what}")
    if law["term_tests"]["both"] is None:
        reasons.append(f"{law['n']} cells for {len(CENTRED)} coefficients test nothing")
    elif not reasons and law["term_tests"]["both"] > 1 - LEVEL:
        reasons.append(f"ratio is constant within scatter (F test, p = {law['term_tests']['both']:.2g})")
    return reasons


def _warnings(law):
    out = [f"{reason}: no law of this form" for reason in law["verdict_reasons"]]
    for term, what in (("b", "size"), ("c", "training")):
        if (p := law["term_tests"][term]) is not None and p > 1 - LEVEL:
            out.append(f"ratio does not fall with {what} beyond scatter (F test, p = {p:.2g})")
    for hit in law["bounds_hit"]:
        out.append(f"{hit} is a bound: the errors of the other coefficients are given that")
    if law["share_agreeing"] < 0.5:
        out.append(f"only {law['share_agreeing']:.0%} of the starts end at the best objective")
    return out
