"""Which form of law holds: every form on the same cells, left-out cells, held-out corners, lack of fit, robustness."""

import numpy as np
import scipy.stats
from scipy.optimize import linprog

from bitlaw import InputError
from bitlaw.analysis.cell_table import PARAMETERS
from bitlaw.laws import estimation, fitting, forms, profile_intervals
from bitlaw.laws.bootstrap import over_cells, over_chunks, start_at
from bitlaw.laws.estimation import FLOOR, Problem

DELTAS = (1e-4, 1e-3, 1e-2)  # of Huber's loss
OF_A_FORM = ("coefficients", "objective", "rmse", "r2", "aicc", "share_agreeing", "bounds_hit", "profile")


def assess(table, column, chunks=None, kind="total", warmup=None, files=None):
    """Everything that `results/<study>/laws/<modality>.json` says of one protocol: `fitting.fit` and how well it holds.

    What the data support of it (law["supported"]) has a bootstrap of its own.

    table: DataFrame of one modality, a row a cell: step, params_<kind>, and `column`, the ratio. chunks: float
    `[cells, chunks]`, the ratio of each chunk in the table's order, or None when only the means are known; files: the
    file of each chunk (one for all unless given). kind: total, nonembedding or nominal. warmup: see `sensitivity`.
    Added to the law: `compare`'s keys, "lack_of_fit", "robust", "sensitivity", "bootstrap" (see `bootstrap`),
    "samples" (its draws), "profile_curve", "at_ends_of_a" (see `profile_intervals`).
    """
    if f"params_{kind}" not in table or table[f"params_{kind}"].isna().any():
        raise InputError(f"law: not every model has a {kind} count of parameters; give it or choose another `params`")
    params, steps, ratio = table[f"params_{kind}"], table["step"], table[column]
    law = fitting.fit(params, steps, ratio, params_kind=kind)
    law |= compare(params, steps, ratio)
    law["lack_of_fit"] = lack_of_fit(law)
    law["robust"] = robust(params, steps, ratio)
    law["sensitivity"] = sensitivity(table, column, kind, warmup)
    for fitted in filter(None, (law, law["supported"])):
        redrawn = over_cells(fitted) if chunks is None else over_chunks(fitted, chunks, files)
        fitted["samples"] = redrawn.pop("samples")
        fitted["bootstrap"] = redrawn
        fitted["at_ends_of_a"] = profile_intervals.at_ends_of_a(fitted)
    law["profile_curve"] = profile_intervals.profile_curve(law)
    return law


def compare(params, steps, ratio, sigma=None, leave_out=True):
    """Every form on the same cells by least squares: {forms, winner, holdouts}, JSON-ready.

    sigma: see `fitting.fit`; leave_out: whether each cell is left out in turn.

    forms: {form: {coefficients, objective, rmse, r2, aicc, share_agreeing, bounds_hit, profile, loo_rmse}}, those that
    there are enough cells for; loo_rmse: see `leave_one_out`. winner: the form of least AICc. holdouts: {name: {params,
    steps, observed, predicted: {form: [ratio]}, rmse: {form}}} for the largest model, the last step, and the far corner
    (the two largest models at the two last steps), those that leave enough cells to fit.
    """
    params, steps, ratio = (np.asarray(column, dtype=np.float64) for column in (params, steps, ratio))
    fits = {}
    for form in forms.EQUATIONS:
        if len(ratio) > len(forms.centred(form)) + 1:
            law = fitting.fit(params, steps, ratio, form=form, sigma=sigma)
            fits[form] = {key: law[key] for key in OF_A_FORM}
            fits[form] |= {"loo_rmse": leave_one_out(law)} if leave_out else {}
    ranked = [form for form, fit in fits.items() if fit["aicc"] is not None]
    winner = min(ranked, key=lambda form: fits[form]["aicc"]) if ranked else None
    return {"forms": fits, "winner": winner, "holdouts": holdouts(params, steps, ratio, list(fits), sigma)}


def leave_one_out(law):
    """Root mean square error of each cell's ratio as predicted by the law fitted to all other cells."""
    problem = Problem.of_law(law)
    errors = []
    for i, ratio in enumerate(problem.response):
        rest = problem.among(np.arange(len(problem.response)) != i)
        at = estimation.polish(rest, start_at(law, rest.response), estimation.REFIT).params.valuesdict()
        predicted, _ = forms.values(law["form"], at, problem.x[i : i + 1], problem.y[i : i + 1])
        errors.append(float(predicted[0] - ratio))
    return float(np.sqrt(np.mean(np.square(errors))))


def holdouts(params, steps, ratio, names, sigma=None, **loss):
    """Cells predicted by each of the forms `names` fitted to the others, see `compare`; loss: options of a Problem."""
    x, y = (np.log(column) - np.log(column).mean() for column in (params, steps))
    weights = None if sigma is None else estimation.relative_weights(sigma)
    sizes, times = np.unique(params), np.unique(steps)
    corners = {
        "largest model": params >= _first_of_last(params),
        "last step": steps >= _first_of_last(steps),
        "far corner": np.isin(params, sizes[-2:]) & np.isin(steps, times[-2:]),
    }
    out = {}
    for name, held in corners.items():
        if not held.any():
            continue  # a table that is no grid has no such corner
        if len(np.unique(params[~held])) < 3 or len(np.unique(steps[~held])) < 3:
            continue  # a constant and a power need three: there is no such hold-out
        kept = [form for form in names if (~held).sum() > len(forms.centred(form))]
        problems = {form: Problem(form, x, y, ratio, weights=weights, **loss) for form in kept}
        predicted = {form: _extrapolated(problem, held) for form, problem in problems.items()}
        out[name] = {
            "params": params[held].tolist(),
            "steps": steps[held].tolist(),
            "observed": ratio[held].tolist(),
            "predicted": {form: ratios.tolist() for form, ratios in predicted.items()},
            "rmse": {form: float(np.sqrt(np.mean((r - ratio[held]) ** 2))) for form, r in predicted.items()},
        }
    return out


def _first_of_last(values, share=0.1):
    """The largest value, or the next below until a tenth of the cells are at or beyond it (no grid)."""
    return next(value for value in np.unique(values)[::-1] if np.mean(values >= value) >= share)


def _extrapolated(problem, held):
    """Ratios of the `held` cells (a mask) by the problem's form, fitted to the others."""
    best = estimation.estimate(problem.among(~held)).result
    return forms.values(problem.form, best.params.valuesdict(), problem.x[held], problem.y[held])[0]


def lack_of_fit(law):
    """The law against f(P) + g(S) with any functions f and g: what no additive law can do better than.

    {rmse, smallest_error, p_law, p_additive}: rmse of the best f + g by least squares; smallest_error, the least
    possible largest error of any f + g (minimax, by linear programming): where the data are known better than that,
    no additive law holds; p_law, of the F test of the law against the best f + g; p_additive, of Tukey's test (1949)
    of f + g against f + g + k f g, one degree of freedom. p is null without degrees of freedom.
    """
    params, steps, ratio = (np.array(law[key]) for key in ("params", "steps", "ratio"))
    sizes, times = (np.column_stack([column == value for value in np.unique(column)]).astype(float)
                    for column in (params, steps))  # fmt: skip
    design = np.column_stack([sizes, times[:, 1:]])
    coefficients = np.linalg.lstsq(design, ratio, rcond=None)[0]
    residuals = ratio - design @ coefficients
    left, free = float(residuals @ residuals), len(ratio) - int(np.linalg.matrix_rank(design))
    more = design.shape[1] - len(law["coefficients"])
    exact = left <= FLOOR * float(ratio @ ratio)
    p_law = p_additive = None
    if free > 0 and more > 0 and not exact:
        squares = float(np.sum(np.square(law["residuals"])))
        p_law = float(scipy.stats.f.sf(max(squares - left, 0.0) / more / (left / free), more, free))
    if free > 1 and not exact:
        by_size = sizes @ coefficients[: sizes.shape[1]]
        by_time = times[:, 1:] @ coefficients[sizes.shape[1] :]
        product = (by_size - by_size.mean()) * (by_time - by_time.mean())
        product -= design @ np.linalg.lstsq(design, product, rcond=None)[0]
        if (norm := float(product @ product)) > 0:
            gain = float(product @ residuals) ** 2 / norm
            p_additive = float(scipy.stats.f.sf(gain / ((left - gain) / (free - 1)), 1, free - 1))
    one = np.ones((len(ratio), 1))
    bounds = [(None, None)] * design.shape[1] + [(0, None)]
    program = linprog(
        [0.0] * design.shape[1] + [1.0],
        A_ub=np.block([[design, -one], [-design, -one]]),
        b_ub=np.concatenate([ratio, -ratio]),
        bounds=bounds,
    )
    rmse = float(np.sqrt(left / len(ratio)))
    return {"rmse": rmse, "smallest_error": float(program.fun), "p_law": p_law, "p_additive": p_additive}


def robust(params, steps, ratio):
    """The additive law by Huber's loss on logarithms (Hoffmann et al. 2022) at several delta: [{delta, ...}]."""
    out = []
    for delta in DELTAS:
        law = fitting.fit(params, steps, ratio, loss="huber", delta=delta, log=True)
        values = {name: entry["value"] for name, entry in law["coefficients"].items()}
        out.append({"delta": delta, "objective": law["objective"], "share_agreeing": law["share_agreeing"],
                    "bounds_hit": law["bounds_hit"], "coefficients": values})  # fmt: skip
    return out


def sensitivity(table, column, kind="total", warmup=None):
    """The additive law with other counts of parameters, and without steps inside warm-up: {name: {values, rmse, n}}.

    table: DataFrame of one modality with params_total, params_nonembedding, params_nominal (each optional), step and
    `column`, the ratio. `warmup`: the steps of learning-rate warm-up, None when not known.
    """
    known = [count for count in PARAMETERS if count in table and table[count].notna().all()]
    out = {count.removeprefix("params_"): _brief(table[count], table["step"], table[column]) for count in known}
    if warmup is not None and (table["step"] <= warmup).any():
        part = table[table["step"] > warmup]
        try:
            out["after warm-up"] = _brief(part[f"params_{kind}"], part["step"], part[column])
        except InputError as error:
            out["after warm-up"] = {"reason": str(error)}
    return out


def _brief(params, steps, ratio):
    law = fitting.fit(params, steps, ratio)
    keys = ("form", "n", "coefficients", "profile", "rmse", "bounds_hit")
    alone = law["supported"] and {key: law["supported"][key] for key in keys}
    return {key: law[key] for key in keys} | {"verdict": law["verdict"], "supported": alone}
