"""Fit a scaling law to a table of compression ratios and say how well it is known (see `forms` for the forms)."""

import functools
import math

import lmfit
import numpy as np
import scipy.stats

from bitlaw import InputError
from bitlaw.analysis.block_bootstrap import LEVEL
from bitlaw.laws import forms, profile_intervals
from bitlaw.laws.forms import BOUNDS, FLOOR

TERMS = {"b": ("u", "alpha"), "c": ("v", "beta")}
NATURAL = ("a", "b", "alpha", "c", "beta", "k")
SINGULAR = 1e8  # condition number beyond which float64 normal equations hold no digit
NEAR = math.log(3)  # an estimate within this factor of a bound may belong on it


def fit(params, steps, ratio, params_kind="total", form="additive", loss="ls", delta=1e-3, log=False):
    """Fit `form` to the ratio, by least squares if not told otherwise; return a dict ready for JSON (no NaN).

    params, steps, ratio: arrays `[n]`, positive: parameters, training steps, compression ratio (1 = raw bytes).
    params_kind: which parameters these are; recorded, not interpreted. form, loss, delta, log: see `forms`; `log`
    fits the logarithm of the ratio. Raises InputError.

    Keys of the result:
      form, equation, params_kind, n, P0, S0, params, steps, ratio, loss, delta (huber only), log
      coefficients  {a, b, alpha, c, beta, k}, those the form has: {value, stderr, stderr_log, reason}. stderr: one
                    standard error (from lmfit's covariance; delta method for b, c), or null with the reason: never
                    of a robust loss. stderr_log, for b and c: error of the natural logarithm; beyond 1, `stderr`
                    would mean nothing and is null.
      objective     of the loss;  rmse (of the ratio, divided by n), r2 (null for constant data)
      aicc          Akaike's criterion, corrected (Hurvich & Tsai 1989), of normal residuals; least squares only
      residuals     observed - fitted ratio, in the order given
      degrees_of_freedom, share_agreeing (polished starts that end at the best objective), bounds_hit (["a = 0"])
      correlation   {names, matrix} of the free centred parameters, or null
      condition_number of the Jacobian in these, columns scaled to length 1 (null when infinite)
      versions      {lmfit, scipy}
      profile       by least squares on the ratio: {a, alpha, beta, k}: {low, high, low_unbounded, high_unbounded},
                    95 % (null where unbounded; a's low end is 0 at least, which is the edge of what a can be)
    and of the additive form by least squares on the ratio
      verdict       "law" | "no law";  verdict_reasons: why there is none (rising at most sizes or steps, a term
                    that vanished, scatter alone, no degree of freedom)
      term_tests    {b, c, both}: p of the F test of the law against one without its size term, without its training
                    term, a constant (null without degrees of freedom); informal, as the terms are bounded
      warnings      sentences
    """
    names = forms.centred(form)
    params, steps, ratio = _checked(params, steps, ratio, len(names))
    P0, S0 = (float(np.exp(np.log(column).mean())) for column in (params, steps))
    x, y = np.log(params / P0), np.log(steps / S0)
    n, total = len(ratio), float(ratio @ ratio)

    found = forms.estimate(form, x, y, ratio, loss, delta, log)
    best, without = found.result, {}
    if form == "additive" and loss == "ls" and not log:
        # What is lost without a term: nothing, if the data do not fall with it.
        without["b = 0"] = profile_intervals.minimum(lambda beta: profile_intervals.project(ratio, np.exp(-beta * y)))
        without["c = 0"] = profile_intervals.minimum(lambda alpha: profile_intervals.project(ratio, np.exp(-alpha * x)))
    best, bounds_hit = _hold_bounds(form, found, x, y, ratio, without, loss, delta, log)

    free, covariance, condition = _covariance(form, best, x, y, ratio, log, loss)
    coefficients = _coefficients(form, best, covariance, free, P0, S0, bounds_hit, loss)
    law = {"form": form, "equation": "CR = " + forms.EQUATIONS[form], "params_kind": params_kind, "n": n}
    law |= {"P0": P0, "S0": S0, "params": params.tolist(), "steps": steps.tolist(), "ratio": ratio.tolist()}
    law |= {"loss": loss, "delta": delta if loss == "huber" else None, "log": log, "coefficients": coefficients}
    residuals = ratio - predict(law, params, steps)
    squares, deviation = float(residuals @ residuals), float(((ratio - ratio.mean()) ** 2).sum())
    r2 = 1 - squares / deviation if deviation > FLOOR * total else None
    own = forms.residuals(form, best.params.valuesdict(), x, y, ratio, log)[0]
    law |= {"objective": forms.objective(own, loss, delta), "rmse": math.sqrt(squares / n), "r2": r2}
    law |= {"aicc": _aicc(squares, n, len(names), total) if loss == "ls" and not log else None}
    law |= {"residuals": residuals.tolist(), "degrees_of_freedom": n - len(free)}
    law |= {"share_agreeing": found.share, "bounds_hit": bounds_hit, "condition_number": condition, "correlation": None}
    if covariance is not None and (sigma := np.sqrt(np.diag(covariance))).all():  # 0: the fit is exact
        law["correlation"] = {"names": free, "matrix": (covariance / np.outer(sigma, sigma)).tolist()}
    law["versions"] = {"lmfit": lmfit.__version__, "scipy": scipy.__version__}
    if loss == "ls" and not log:
        interval = profile_intervals.additive if without else functools.partial(profile_intervals.by_refit, form)
        law["profile"] = interval(best, x, y, ratio, FLOOR * total)
    if without:
        law["term_tests"] = _term_tests(
            ratio, squares, {"b": without["b = 0"], "c": without["c = 0"], "both": deviation}, FLOOR * total
        )
        law["verdict_reasons"] = _why_no_law(params, steps, ratio, law)
        law["verdict"] = "no law" if law["verdict_reasons"] else "law"
        law["warnings"] = _warnings(law)
    return law


def predict(law, params, steps):
    """Ratios of `law` at params, steps (arrays that broadcast, positive), float64."""
    return evaluate(law["form"], {name: c["value"] for name, c in law["coefficients"].items()}, params, steps)


def evaluate(form, c, params, steps):
    """Ratios under the coefficients `c` ({name: value}; a term whose b or c is 0 has vanished)."""
    params, steps = np.asarray(params, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    shape = np.broadcast(params, steps).shape
    if form == "multiplicative":
        return c["a"] + np.exp(math.log(c["b"]) - c["alpha"] * np.log(params) - c["beta"] * np.log(steps))
    terms = np.zeros(shape)
    for scale, power, at in ((c["b"], c["alpha"], params), (c["c"], c["beta"], steps)):
        if scale:
            terms = terms + np.exp(math.log(scale) - power * np.log(at))
    return c.get("a", 0.0) + terms ** c.get("k", 1.0)


def _aicc(squares, n, coefficients, total):
    """n ln(RSS/n) + 2 K + 2 K (K + 1) / (n - K - 1) with K = coefficients and the variance; None if n is too small."""
    K = coefficients + 1
    if n - K - 1 <= 0:
        return None
    return n * math.log(max(squares, FLOOR * total) / n) + 2 * K + 2 * K * (K + 1) / (n - K - 1)


def _checked(params, steps, ratio, needed):
    columns = {"params": params, "steps": steps, "ratio": ratio}
    for name, values in columns.items():
        columns[name] = values = np.asarray(values, dtype=np.float64)
        if values.ndim != 1 or len(values) != np.size(params):
            raise InputError(f"law: {name} has shape {values.shape}, needs the length of params, {np.size(params)}")
        if bad := [float(value) for value in values if not (math.isfinite(value) and value > 0)]:
            raise InputError(f"law: {name} holds {bad[0]}; a law needs finite, positive numbers: drop that cell")
    cells = len({*zip(columns["params"], columns["steps"], strict=True)})
    if cells < needed:
        raise InputError(f"law: {cells} distinct cells; {needed} coefficients need at least {needed}")
    for name in ("params", "steps"):
        if (distinct := len(np.unique(columns[name]))) < 3:
            raise InputError(f"law: {name} takes {distinct} distinct values; a constant and a power need at least 3")
    return columns.values()


def _hold_bounds(form, found, x, y, ratio, without, loss, delta, log):
    """Fix what sits on a bound there and fit the rest again, so that the covariance is that of the rest.

    An interior method only nears a bound: on it is what can be put there at no loss.
    """
    best, objective = found.result, found.objective
    zero = forms.objective(np.log(ratio) if log else ratio, loss, delta)
    tolerance = forms.SAME * objective + FLOOR * zero
    names = best.params.valuesdict()
    trials = {}
    if "v" in names:
        trials |= {f"{scale} = 0": {TERMS[scale][0]: -math.inf, TERMS[scale][1]: 1.0} for scale in TERMS}
    for name, bounds in (("alpha", BOUNDS), ("beta", BOUNDS), ("k", forms.POWERS)):
        near = [bound for bound in bounds if name in names and abs(math.log(names[name] / bound)) < NEAR]
        trials |= {f"{name} = {bound:g}": {name: bound} for bound in near}
    if "a" in names:
        trials["a = 0"] = {"a": 0.0}
    hit = []
    for trial, held_values in trials.items():
        held = best.params.copy()
        if not all(held[name].vary for name in held_values) or len(best.var_names) == len(held_values):
            continue  # held already, or nothing would remain to fit
        if without.get(trial, 0.0) > objective + tolerance:
            continue
        for name, value in held_values.items():
            held[name].set(value=value, min=min(held[name].min, value), vary=False)
        again = forms.polish(form, x, y, ratio, held, loss, delta, log)
        residuals = forms.residuals(form, again.params.valuesdict(), x, y, ratio, log)[0]
        if (left := forms.objective(residuals, loss, delta)) <= objective + tolerance:
            best, objective = again, left
            hit.append(trial)
    return best, hit


def _covariance(form, best, x, y, ratio, log, loss):
    """Names of the free parameters, their covariance or None, and the condition number of the scaled Jacobian."""
    free = list(best.var_names)
    slopes = forms.residuals(form, best.params.valuesdict(), x, y, ratio, log)[1]
    jacobian = slopes[:, [forms.centred(form).index(name) for name in free]]
    scale = np.linalg.norm(jacobian, axis=0)
    # a column of zeros is a coefficient that changes nothing at the optimum: the cells do not determine it
    condition = float(np.linalg.cond(jacobian / scale)) if np.all(scale > 0) else math.inf
    covariance = getattr(best, "covar", None)
    usable = loss == "ls" and covariance is not None and best.ndata > len(best.params) and condition < SINGULAR
    usable = usable and bool(np.all(np.diag(covariance) >= 0))
    return free, covariance if usable else None, condition if math.isfinite(condition) else None


def _coefficients(form, best, covariance, free, P0, S0, bounds_hit, loss):
    """See `fit`. Delta method: ln b = u + alpha ln P0, so var ln b = g' cov g with g = 1 at u, ln P0 at alpha."""
    at = best.params.valuesdict()
    value = forms.natural(form, at, P0, S0)
    slopes = {name: {} for name in value}
    for centred in at:  # the coefficients are linear in all but k
        h = 1e-5
        above, below = (forms.natural(form, at | {centred: at[centred] + sign * h}, P0, S0) for sign in (1, -1))
        for name in value:
            if (slope := (above[name] - below[name]) / (2 * h)) != 0:
                slopes[name][centred] = slope
    out = {}
    for name in (name for name in NATURAL if name in value):
        scale = {"b": "b", "alpha": "b", "c": "c", "beta": "c"}.get(name)
        out[name] = entry = {"value": value[name], "stderr": None, "stderr_log": None, "reason": None}
        if f"{scale} = 0" in bounds_hit:
            entry |= {"value": 0.0 if name == scale else None, "reason": "its term vanished"}
            continue
        if name in TERMS:
            entry["value"] = math.exp(value[name])
        if held := [centred for centred in slopes[name] if centred not in free]:
            entry["reason"] = f"{held[0]} is at its bound"
        elif loss != "ls":
            entry["reason"] = "a robust loss has no standard errors"
        elif best.ndata <= len(at):
            entry["reason"] = "no degrees of freedom"
        elif covariance is None:
            entry["reason"] = "not identified: singular covariance or no convergence"
        else:
            g = np.array([slopes[name].get(centred, 0.0) for centred in free])
            error = float(np.sqrt(g @ covariance @ g))
            if name not in TERMS:
                entry["stderr"] = error
            else:
                entry["stderr_log"] = error
                if error > 1:
                    entry["reason"] = f"not identified: the error of its logarithm is {error:.2g}"
                else:
                    entry["stderr"] = entry["value"] * error
    return out


def _term_tests(ratio, objective, without, floor):
    """p values of the F tests of the law against no size term (b), no training term (c), a constant (both)."""
    dof = len(ratio) - 5
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
        elif hit := [bound for bound in law["bounds_hit"] if bound.startswith(f"{TERMS[scale][1]} = ")]:
            reasons.append(f"ratio follows no power of {what} ({hit[0]} is a bound)")
    if law["term_tests"]["both"] is None:
        reasons.append(f"{law['n']} cells for {len(law['coefficients'])} coefficients test nothing")
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
