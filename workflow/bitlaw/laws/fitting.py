"""Fit a scaling law to a table of compression ratios and say how well it is known (see `forms` for the forms)."""

import math

import lmfit
import numpy as np
import scipy

from bitlaw import InputError
from bitlaw.laws import estimation, forms, profile_intervals, verdict
from bitlaw.laws.estimation import FLOOR, SAME, Problem
from bitlaw.laws.forms import BOUNDS, NATURAL, POWERS, TERMS

NEEDED = ("response", "n", "P0", "S0", "params", "steps", "ratio", "residuals", "degrees_of_freedom", "objective",
          "loss", "log")  # of a law to predict from  # fmt: skip
SINGULAR = 1e8  # condition number beyond which float64 normal equations hold no digit
NEAR = math.log(3)  # an estimate within this factor of a bound may belong on it;
NEAR_FLAT = math.log(10)  # of the least exponent, towards which the objective flattens out, within this one


def fit(
    params, steps, ratio, params_kind="total", form="additive", loss="ls", delta=1e-3, log=False, response="CR",
    sigma=None,
):  # fmt: skip
    """Fit `form` to the ratio, by least squares if not told otherwise; return a dict ready for JSON (no NaN).

    params, steps, ratio: arrays `[n]`, positive: parameters, training steps, compression ratio (1 = raw bytes).
    params_kind: which parameters these are, response: what the ratio is called; recorded, not interpreted. form, loss,
    delta: see `forms` and `estimation`; `log` fits the logarithm of the ratio. sigma: standard errors of what is fitted
    (the ratio, or its logarithm), `[n]`, positive; they weigh the residuals by their size relative to each other, and
    the scatter itself is read from the residuals. Raises InputError.

    Keys of the result:
      form, equation, response, params_kind, n, P0, S0, params, steps, ratio, sigma, loss, delta (huber only), log
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
      verdict       "law in size and training" | "law in size only" | "law in training only" | "no law": the terms that
                    the data support (see `verdict`);  verdict_reasons: sentences on those that they do not
      supported     where they support one term: the law refitted with that term alone, a dict like this; else null
      term_tests    see `verdict.term_tests`; informal, as the terms are bounded
      warnings      sentences
    """
    params, steps, ratio, sigma = _checked(params, steps, ratio, sigma, form)
    P0, S0 = (float(np.exp(np.log(column).mean())) for column in (params, steps))
    weights = None if sigma is None else estimation.relative_weights(sigma)
    problem = Problem(form, np.log(params / P0), np.log(steps / S0), ratio, loss, delta, log, weights)
    by_squares = loss == "ls" and not log
    judged = by_squares and form == "additive"

    estimate = estimation.estimate(problem)
    without = profile_intervals.without_a_term(problem) if judged else {}
    best, bounds_hit = _hold_bounds(problem, estimate, without)
    at = best.params.valuesdict()
    covariance, condition = _covariance(problem, best)
    coefficients = _coefficients(problem, best, covariance, P0, S0, bounds_hit)

    fitted = forms.evaluate(form, {name: entry["value"] for name, entry in coefficients.items()}, params, steps)
    residuals = ratio - fitted
    squares = float(residuals @ residuals)
    deviation = float(((ratio - ratio.mean()) ** 2).sum())
    rounding = FLOOR * float(ratio @ ratio)
    law = {
        "form": form,
        "equation": f"{response} = {forms.EQUATIONS[form]}",
        "response": response,
        "params_kind": params_kind,
        "n": len(ratio),
        "P0": P0,
        "S0": S0,
        "params": params.tolist(),
        "steps": steps.tolist(),
        "ratio": ratio.tolist(),
        "sigma": None if sigma is None else sigma.tolist(),
        "loss": loss,
        "delta": delta if loss == "huber" else None,
        "log": log,
        "coefficients": coefficients,
        "objective": problem.objective(at),
        "rmse": math.sqrt(squares / len(ratio)),
        "r2": 1 - squares / deviation if deviation > rounding else None,
        "aicc": _aicc(max(problem.objective(at), rounding), len(ratio), len(problem.names)) if by_squares else None,
        "residuals": residuals.tolist(),
        "degrees_of_freedom": len(ratio) - len(best.var_names),
        "share_agreeing": estimate.share,
        "bounds_hit": bounds_hit,
        "condition_number": condition,
        "correlation": _correlation(best, covariance),
        "versions": {"lmfit": lmfit.__version__, "scipy": scipy.__version__},
    }
    if by_squares:
        intervals = profile_intervals.additive if form in forms.ADDS_TERMS else profile_intervals.by_refit
        law["profile"] = intervals(problem, best)
    if judged:
        instead = profile_intervals.instead_of_a_term(problem)
        without["both"] = profile_intervals.constant(problem)
        law["term_tests"] = verdict.term_tests(problem, law["objective"], without, instead)
        law |= _verdict(law, lambda form: fit(params, steps, ratio, params_kind, form, response=response, sigma=sigma))
        law["warnings"] = verdict.warnings(law)
    return law


def _verdict(law, refit):
    """The law's {verdict, verdict_reasons, supported}; refit: a function of a form, to the same data."""
    terms, reasons = verdict.judge(law)
    if len(terms) == 2:
        return {"verdict": verdict.BOTH, "verdict_reasons": reasons, "supported": None}
    alone = refit(terms[0].alone) if terms else None
    if alone is not None and not (against := verdict.against_alone(alone)):
        return {"verdict": verdict.ONLY[terms[0]], "verdict_reasons": reasons, "supported": alone}
    return {"verdict": verdict.NONE, "verdict_reasons": against if terms else reasons, "supported": None}


def values_of(law):
    """{name: value} of the law's coefficients; None where a term vanished."""
    return {name: entry["value"] for name, entry in law["coefficients"].items()}


def predict(law, params, steps):
    """Ratios of `law` at params, steps (arrays that broadcast, positive), float64."""
    return forms.evaluate(law["form"], values_of(law), params, steps)


def check(law, path):
    """Raise InputError when `law`, read from the file `path`, lacks what a prediction needs."""
    if law.get("form") not in forms.EQUATIONS:
        raise InputError(f"{path}: form {law.get('form')!r} of the law is none of {', '.join(forms.EQUATIONS)}")
    known = law.get("verdict")
    if known not in (None, verdict.BOTH, verdict.NONE, *verdict.ONLY.values()):
        raise InputError(f"{path}: verdict {known!r} of the law is none that is known; fit it again")
    if known in verdict.ONLY.values():
        if not isinstance(law.get("supported"), dict):
            raise InputError(f"{path}: no whole law: it lacks supported; give one that `fit` or a study wrote")
        check(law["supported"], path)
    lacks = [key for key in NEEDED if key not in law]
    coefficients = law.get("coefficients", {})
    lacks += [
        f"coefficients.{name}" for name in forms.coefficients(law["form"]) if "value" not in coefficients.get(name, ())
    ]
    if lacks:
        raise InputError(f"{path}: no whole law: it lacks {lacks[0]}; give one that `fit` or a study wrote")


def _aicc(squares, n, coefficients):
    """n ln(RSS/n) + 2 K + 2 K (K + 1) / (n - K - 1) with K = coefficients and the variance; None if n is too small."""
    K = coefficients + 1
    if n - K - 1 <= 0:
        return None
    return n * math.log(squares / n) + 2 * K + 2 * K * (K + 1) / (n - K - 1)


def _checked(params, steps, ratio, sigma, form):
    """The four columns as float64 `[n]` (sigma may be None); raises InputError where `form` cannot be fitted."""
    columns = {"params": params, "steps": steps, "ratio": ratio} | ({} if sigma is None else {"sigma": sigma})
    needed = len(forms.centred(form))
    for name, values in columns.items():
        columns[name] = values = np.asarray(values, dtype=np.float64)
        if values.ndim != 1 or len(values) != np.size(params):
            raise InputError(f"law: {name} has shape {values.shape}, needs the length of params, {np.size(params)}")
        if bad := [float(value) for value in values if not (math.isfinite(value) and value > 0)]:
            raise InputError(f"law: {name} holds {bad[0]}; a law needs finite, positive numbers: drop that cell")
    cells = len({*zip(columns["params"], columns["steps"], strict=True)})
    if cells < needed:
        raise InputError(f"law: {cells} distinct cells; {needed} coefficients need at least {needed}")
    names = {forms.SIZE: "params", forms.TRAINING: "steps"}
    for name in (names[term] for term in forms.variables_of(form)):
        if (distinct := len(np.unique(columns[name]))) < 3:
            raise InputError(f"law: {name} takes {distinct} distinct values; a constant and a power need at least 3")
    return [columns.get(name) for name in ("params", "steps", "ratio", "sigma")]


def _hold_bounds(problem, estimate, without):
    """Fix what sits on a bound there and fit the rest again, so that the covariance is that of the rest.

    An interior method only nears a bound: on it is what can be put there at no loss. without: {scale: the objective of
    the fit without that term}, where known: it spares the refits without a term that is needed. Returns lmfit's result
    and the bounds hit, as text.
    """
    best, objective = estimate.result, estimate.objective
    tolerance = SAME * objective + problem.rounding
    bounds_hit = []
    for bound, held_values in _bounds_near(problem.form, best.params.valuesdict()).items():
        needed = any(bound == f"{scale} = 0" and left > objective + tolerance for scale, left in without.items())
        held = best.params.copy()
        if needed or not all(held[name].vary for name in held_values) or len(best.var_names) == len(held_values):
            continue  # held already, or nothing would remain to fit
        for name, value in held_values.items():
            held[name].set(value=value, min=min(held[name].min, value), vary=False)
        again = estimation.polish(problem, estimation.projected(problem, held))
        if (left := problem.objective(again.params.valuesdict())) <= objective + tolerance:
            best, objective = again, left
            bounds_hit.append(bound)
    return best, bounds_hit


def _bounds_near(form, at):
    """{"beta = 5": {centred parameter: value on the bound}} of the bounds that the parameters `at` may be on."""
    out = {f"{term.scale} = 0": {term.centred_scale: -math.inf, term.exponent: 1.0} for term in forms.terms_of(form)}
    for name, bounds in (("alpha", BOUNDS), ("beta", BOUNDS), ("k", POWERS)):
        near = [
            bound for bound in bounds
            if name in at and abs(math.log(at[name] / bound)) < (NEAR_FLAT if bound == BOUNDS[0] else NEAR)
        ]  # fmt: skip
        out |= {f"{name} = {bound:g}": {name: bound} for bound in near}
    if "a" in at:
        out["a = 0"] = {"a": 0.0}
    return out


def _covariance(problem, best):
    """The covariance of the free parameters, or None, and the condition number of their Jacobian, scaled, or None."""
    slopes = problem.residuals(best.params.valuesdict())[1]
    jacobian = slopes[:, [problem.names.index(name) for name in best.var_names]]
    scale = np.linalg.norm(jacobian, axis=0)
    # a column of zeros is a coefficient that changes nothing at the optimum: the cells do not determine it
    condition = float(np.linalg.cond(jacobian / scale)) if np.all(scale > 0) else math.inf
    covariance = getattr(best, "covar", None)
    usable = problem.loss == "ls" and covariance is not None
    usable = usable and best.ndata > len(best.params) and condition < SINGULAR
    usable = usable and bool(np.all(np.diag(covariance) >= 0))
    return covariance if usable else None, condition if math.isfinite(condition) else None


def _correlation(best, covariance):
    """{names, matrix} of the free parameters; None without a covariance, or where the fit is exact."""
    if covariance is None or not (sigma := np.sqrt(np.diag(covariance))).all():
        return None
    return {"names": list(best.var_names), "matrix": (covariance / np.outer(sigma, sigma)).tolist()}


def _coefficients(problem, best, covariance, P0, S0, bounds_hit):
    """See `fit`. Delta method: ln b = u + alpha ln P0, so var ln b = g' cov g with g = 1 at u, ln P0 at alpha."""
    at, free = best.params.valuesdict(), list(best.var_names)
    values = forms.natural(problem.form, at, P0, S0)
    slopes = {name: {} for name in values}
    for centred in at:  # the coefficients are linear in all but k
        h = 1e-5
        above, below = (forms.natural(problem.form, at | {centred: at[centred] + sign * h}, P0, S0) for sign in (1, -1))
        for name in values:
            if (slope := (above[name] - below[name]) / (2 * h)) != 0:
                slopes[name][centred] = slope
    scales = [term.scale for term in TERMS]
    vanished = {name for term in TERMS if f"{term.scale} = 0" in bounds_hit for name in (term.scale, term.exponent)}
    out = {}
    for name in (name for name in NATURAL if name in values):
        out[name] = entry = {"value": values[name], "stderr": None, "stderr_log": None, "reason": None}
        if name in vanished:
            entry |= {"value": 0.0 if name in scales else None, "reason": "its term vanished"}
            continue
        if name in scales:
            entry["value"] = math.exp(values[name])
        if held := [centred for centred in slopes[name] if centred not in free]:
            entry["reason"] = f"{held[0]} is at its bound"
        elif problem.loss != "ls":
            entry["reason"] = "a robust loss has no standard errors"
        elif best.ndata <= len(at):
            entry["reason"] = "no degrees of freedom"
        elif covariance is None:
            entry["reason"] = "not identified: singular covariance or no convergence"
        else:
            g = np.array([slopes[name].get(centred, 0.0) for centred in free])
            error = float(np.sqrt(g @ covariance @ g))
            if name not in scales:
                entry["stderr"] = error
            else:
                entry["stderr_log"] = error
                if error > 1:
                    entry["reason"] = f"not identified: the error of its logarithm is {error:.2g}"
                else:
                    entry["stderr"] = entry["value"] * error
    return out
