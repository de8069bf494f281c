"""Laws of a table of one's own: one for each response and group, with what a study says of how well each holds."""

from bitlaw import InputError
from bitlaw.laws import bootstrap, fitting, formatting, model_selection

MOST_LEFT_OUT = 100  # cells, beyond which leaving each out in turn takes too long to wait for


def fit_all(table, size, steps, responses, sigma=None, by=None, **options):
    """{name: law} of the DataFrame `table`: a law for each of `responses`, in each group of the column `by`.

    size, steps, responses, sigma, by: names of columns. A law's name is its response, its group, or "group, response".
    options: see `fit_one`. Raises InputError, which names the law.
    """
    groups = {"": table} if by is None else dict(iter(table.groupby(by, sort=False)))
    out = {}
    for group, rows in groups.items():
        for response in responses:
            name = ", ".join(filter(None, (group, response if len(responses) > 1 or not group else "")))
            try:
                out[name] = fit_one(rows, size, steps, response, sigma, **options)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
    return out


def fit_one(rows, size, steps, response, sigma=None, form="additive", loss="ls", delta=1e-3, log=False):
    """A law as `fitting.fit` returns it, with "columns" ({size, steps, response, sigma}: names) and "holdouts".

    By least squares of the response itself it also has "samples", "bootstrap", "forms" and "winner", see
    `model_selection`; "forms" lack "loo_rmse" beyond MOST_LEFT_OUT rows.
    """
    p, s, ratio = (rows[column].to_numpy(float) for column in (size, steps, response))
    errors = None if sigma is None else rows[sigma].to_numpy(float)
    law = fitting.fit(p, s, ratio, size, form, loss, delta, log, response, errors)
    law["columns"] = {"size": size, "steps": steps, "response": response, "sigma": sigma}
    if loss == "ls" and not log:
        for fitted in filter(None, (law, law.get("supported"))):
            redrawn = bootstrap.over_cells(fitted)
            fitted["samples"] = redrawn.pop("samples")
            fitted["bootstrap"] = redrawn
        law |= model_selection.compare(p, s, ratio, errors, leave_out=len(ratio) <= MOST_LEFT_OUT)
    else:
        law["holdouts"] = model_selection.holdouts(p, s, ratio, [form], errors, loss=loss, delta=delta, log=log)
    return law


def listing(law):
    """The law for a terminal, as for a study: coefficients, intervals, other forms, the largest size held out."""
    lines = [f"P: {law['columns']['size']}, S: {law['columns']['steps']}", formatting.listing(law)]
    if forms := law.get("forms"):
        lines.append("forms compared (ΔAICc, RMSE of each row predicted from the others):")
        least = min((fit["aicc"] for fit in forms.values() if fit["aicc"] is not None), default=None)
        for form, fit in sorted(forms.items(), key=lambda item: (item[1]["aicc"] is None, item[1]["aicc"])):
            more = "?" if fit["aicc"] is None else f"{fit['aicc'] - least:.1f}"
            lines.append(f"  {form:<15} {more:>7}" + (f" {fit['loo_rmse']:.4g}" if "loo_rmse" in fit else ""))
    if (held := law["holdouts"].get("largest model")) is not None:
        errors = ", ".join(
            f"{form} {rmse:.4g}" for form, rmse in sorted(held["rmse"].items(), key=lambda item: item[1])
        )
        first = min(held["params"])
        where = (
            f"the largest size ({first:g}"
            + (" and more" * (max(held["params"]) > first))
            + f", {len(held['params'])} rows)"
        )
        lines.append(f"{where} predicted from the others, RMSE: {errors}")
    else:
        lines.append("the largest size cannot be held out: fewer than three sizes or steps would be left")
    return "\n".join(lines)
