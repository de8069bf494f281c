"""Laws written out for people: one line, mathtext, tables in markdown and LaTeX."""

import math
import re

GREEK = {"alpha": "α", "beta": "β"}


def describe(law):
    """The law for people: numbers, errors, intervals and fit on one line; says so when there is no law."""
    ends = {name: [span[end] for end in ("low", "high")] for name, span in law["profile"].items()}
    shown = {name: ["unbounded" if end is None else f"{end:.3g}" for end in pair] for name, pair in ends.items()}
    intervals = "95 %: " + ", ".join(f"{GREEK.get(name, name)} {low} to {high}" for name, (low, high) in shown.items())
    quality = f"n {law['n']}, RMSE {law['rmse']:.2g}" + ("" if law["r2"] is None else f", R² {law['r2']:.3f}")
    verdict = "no law: " + "; ".join(law["verdict_reasons"]) + "; best fit " if law["verdict"] != "law" else ""
    return f"{verdict}{_written(law, plain=True)} ({errors(law)}; {intervals}; {quality})"


def listing(law):
    """The law for a terminal: a line a coefficient, then how good the fit is."""
    loss = (
        law["loss"] + (f", delta {law['delta']:g}" if law["delta"] else "") + (", of logarithms" if law["log"] else "")
    )
    lines = [f"{law['form']}: {law['equation']}; {law['n']} rows; loss {loss}"]
    for name, c in law["coefficients"].items():
        value = "-" if c["value"] is None else f"{c['value']:.6g}"
        error = f"± {_two(c['stderr'])}" if c["stderr"] is not None else f"({c['reason']})"
        span = law.get("profile", {}).get(name)
        ends = "" if span is None else "  95 % " + " to ".join(
            "unbounded" if span[end] is None else f"{span[end]:.4g}" for end in ("low", "high"))  # fmt: skip
        lines.append(f"  {name:<5} {value:>12} {error}{ends}")
    quality = f"objective {law['objective']:.8g}, RMSE {law['rmse']:.4g}"
    quality += "" if law["r2"] is None else f", R² {law['r2']:.4f}"
    quality += "" if law["aicc"] is None else f", AICc {law['aicc']:.2f}"
    lines.append(f"{quality}; {law['share_agreeing']:.0%} of the starts end at this objective")
    lines += [f"at a bound: {', '.join(law['bounds_hit'])}"] if law["bounds_hit"] else []
    return "\n".join(lines + [f"no law: {reason}" for reason in law.get("verdict_reasons", [])])


def equation(law):
    """The law with its numbers as mathtext, for figures."""
    return f"${_written(law, plain=False)}$"


def errors(law):
    """Standard errors as plain text: "a ± 0.03, ln b ± 4.6, α ± 0.23, ..."; "?" where there is none.

    An exponent whose 95 % interval is unbounded is called that, with the end that it has.
    """
    parts = []
    for name, c in law["coefficients"].items():
        shown = GREEK.get(name, name)
        span = law.get("profile", {}).get(name, {})
        unbounded = [end for end in ("low", "high") if span.get(f"{end}_unbounded")]
        if unbounded and c["value"] is not None:  # a standard error would claim to know it
            side = {"low": "below", "high": "above"}[unbounded[0]]
            end = span["high" if unbounded == ["low"] else "low"]
            parts.append(f"{shown} unbounded" + (f" {side} {end:.2g}" if len(unbounded) == 1 else ""))
        elif c["stderr"] is not None:
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


HEADER = ("protocol", "form", "a", "b", "α", "c", "β", "k", "RMSE", "LOO", "ΔAICc")


def rows(found):
    """A row for each protocol and form that was fitted: the study's form, then the winner, then the rest."""
    rows = []
    for protocol, law in found.items():
        fits, least = law["forms"], min(fit["aicc"] for fit in law["forms"].values() if fit["aicc"] is not None)
        for form in sorted(fits, key=lambda form: (form != "additive", form != law["winner"])):
            fit = fits[form]
            cells = [_with_error(fit["coefficients"].get(name)) for name in ("a", "b", "alpha", "c", "beta", "k")]
            marks = " (best)" * (form == law["winner"]) + " (no law)" * (form == "additive" and law["verdict"] != "law")
            marks += f" ({', '.join(fit['bounds_hit'])})" * bool(fit["bounds_hit"])
            quality = [f"{fit['rmse']:.4f}", f"{fit['loo_rmse']:.4f}"]
            delta = "" if fit["aicc"] is None else f"{fit['aicc'] - least:.1f}"
            rows.append([protocol, form + marks, *cells, *quality, delta])
    return rows


def _with_error(entry):
    """A coefficient and its standard error; `×/÷` where only that of the logarithm means something."""
    if entry is None or entry["value"] is None:
        return ""
    value = f"{entry['value']:.4g}"
    if entry["stderr"] is not None:
        return f"{value} ± {_two(entry['stderr'])}"
    if entry["stderr_log"] is not None and entry["stderr_log"] < 20:
        return f"{value} ×/÷ {_two(math.exp(entry['stderr_log']))}"
    return f"{value} ± ?"


def markdown(modality, found):
    """The fitted forms of a modality, {protocol: law}, as a markdown table of coefficients ± one standard error."""
    lines = [f"| {modality}: {HEADER[0]} | " + " | ".join(HEADER[1:]) + " |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows(found)]) + "\n"


def latex(modality, found):
    r"""The same as a LaTeX tabular (booktabs)."""
    symbols = {"α": r"$\alpha$", "β": r"$\beta$", "ΔAICc": r"$\Delta$AICc", "±": r"$\pm$", "×/÷": r"$\times/\div$"}

    def line(row):
        text = " & ".join(row) + r" \\"
        for plain, command in symbols.items():
            text = text.replace(plain, command)
        return re.sub(r"([\d.]+)e([+-]?)0*(\d+)", r"$\1\\times10^{\2\3}$", text).replace("{+", "{")

    head = [r"\begin{tabular}{ll" + "r" * (len(HEADER) - 2) + "}", r"\toprule", line(HEADER), r"\midrule"]
    body = [line(row) for row in rows(found)]
    return "\n".join([f"% {modality}", *head, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"
