"""Laws written out for people: one line, mathtext, tables in markdown and LaTeX."""

import math
import re

from bitlaw.laws.forms import NATURAL, TERMS, terms_of
from bitlaw.laws.verdict import GREEK, ONLY, is_law, supported

SPECIAL, ESCAPED = r"([_#$%&{}^~ ])", r"\\\1"  # of mathtext, in the name of a response


def describe(law):
    """The law for people, on one line: the terms that the data support, what they do not, errors, intervals and fit.

    Says so when there is no law, and writes the best fit of all terms then.
    """
    reasons, known = "; ".join(law["verdict_reasons"]), supported(law) or law
    intervals = ", ".join(f"{GREEK.get(name, name)} {ends(interval)}" for name, interval in known["profile"].items())
    quality = f"n {known['n']}, RMSE {known['rmse']:.2g}" + ("" if known["r2"] is None else f", R² {known['r2']:.3f}")
    before, after = ("", f"; {reasons}" * bool(reasons)) if is_law(law) else (f"no law: {reasons}; best fit ", "")
    return f"{before}{written(known)}{after} ({errors(known)}; 95 %: {intervals}; {quality})"


def listing(law):
    """The law for a terminal: a line a coefficient of the terms that the data support, the fit, the verdict."""
    verdict, reasons = law.get("verdict"), law.get("verdict_reasons", [])
    law = supported(law) or law
    loss = law["loss"] + (f", delta {law['delta']:g}" if law["delta"] else "")
    loss += ", of logarithms" if law["log"] else ""
    loss += ", weighted by 1/sigma" if law.get("sigma") else ""
    lines = [f"{law['form']}: {law['equation']}; {law['n']} rows; loss {loss}"]
    for name, entry in law["coefficients"].items():
        value = "-" if entry["value"] is None else f"{entry['value']:.6g}"
        error = f"± {_two(entry['stderr'])}" if entry["stderr"] is not None else f"({entry['reason']})"
        profile = law.get("profile", {}).get(name)
        known = "" if profile is None else f"  95 % {ends(profile, 4)}"
        lines.append(f"  {name:<5} {value:>12} {error}{known}")
    quality = f"objective {law['objective']:.8g}, RMSE {law['rmse']:.4g}"
    quality += "" if law["r2"] is None else f", R² {law['r2']:.4f}"
    quality += "" if law["aicc"] is None else f", AICc {law['aicc']:.2f}"
    lines.append(f"{quality}; {law['share_agreeing']:.0%} of the starts end at this objective")
    lines += [f"at a bound: {', '.join(law['bounds_hit'])}"] if law["bounds_hit"] else []
    lines += [": ".join([verdict, *["; ".join(reasons)] * bool(reasons)])] if verdict else []
    return "\n".join(lines)


def ends(span, digits=3):
    """An interval {low, high} as text: "0.063 to 0.71", "unbounded to 0.71" where there is no low end."""
    low, high = (span[end] for end in ("low", "high"))
    return " to ".join("unbounded" if end is None else f"{end:.{digits}g}" for end in (low, high))


def interval(span, digits=2):
    """A 95 % interval of law["profile"] for a figure: "0.063 to 0.71", "below 0.3, no lower end", "unbounded"."""
    low, high = (None if span[f"{end}_unbounded"] else f"{span[end]:.{digits}g}" for end in ("low", "high"))
    if low and high:
        return f"{low} to {high}"
    return f"above {low}, no upper end" if low else f"below {high}, no lower end" if high else "unbounded"


def equation(law):
    """The law with its numbers as mathtext, for figures."""
    return f"${written(law, plain=False)}$"


def errors(law):
    """Standard errors as plain text: "a ± 0.03, ln b ± 4.6, α ± 0.23, ..."; "?" where there is none.

    An exponent whose 95 % interval is unbounded is called that, with the end that it has.
    """
    parts = []
    for name, entry in law["coefficients"].items():
        shown = GREEK.get(name, name)
        interval = law.get("profile", {}).get(name, {})
        unbounded = [end for end in ("low", "high") if interval.get(f"{end}_unbounded")]
        if unbounded and entry["value"] is not None:  # a standard error would claim to know it
            side = {"low": "below", "high": "above"}[unbounded[0]]
            end = interval["high" if unbounded == ["low"] else "low"]
            parts.append(f"{shown} unbounded" + (f" {side} {end:.2g}" if len(unbounded) == 1 else ""))
        elif entry["stderr"] is not None:
            parts.append(f"{shown} ± {_two(entry['stderr'])}")
        elif entry["stderr_log"] is not None:
            parts.append(f"ln {shown} ± {_two(entry['stderr_log'])}")
        elif entry["value"] is not None:
            parts.append(f"{shown} ± ?")
    return ", ".join(parts)


def _two(number):
    return f"{number:#.2g}".rstrip(".") if number < 100 else f"{number:.2g}"


def written(law, plain=True):
    """The law with its numbers, "CR = 0.098 + 60.8 P^-0.380 + 14.2 S^-0.750", as plain text or as mathtext."""
    values = {name: entry["value"] for name, entry in law["coefficients"].items()}
    response = law.get("response", "CR")
    if not plain:
        response = rf"\mathrm{{{re.sub(SPECIAL, ESCAPED, response)}}}"

    def power(term):
        exponent = values[term.exponent]
        return f" {term.symbol}^-{exponent:.3f}" if plain else rf"\,{term.symbol}^{{-{exponent:.3f}}}"

    if terms_of(law["form"]):
        terms = [_number(values[t.scale], plain) + power(t) for t in terms_of(law["form"]) if values[t.scale]]
    else:
        terms = [_number(values["b"], plain) + "".join(map(power, TERMS))]
    constant = [f"{values['a']:.3f}"] if "a" in values else []
    if "k" in values and terms:
        raised = f"{values['k']:.3f}" if plain else f"{{{values['k']:.3f}}}"
        terms = [f"({' + '.join(terms)})^{raised}"]
    return f"{response} = {' + '.join(constant + terms) or '0'}"


def _number(scale, plain):
    """Three digits of a scale, with a power of ten where it is far from one."""
    digits, power_of_ten = f"{scale:.2e}".split("e")
    if -3 <= int(power_of_ten) <= 4:
        return f"{scale:#.3g}".rstrip(".") if int(power_of_ten) < 3 else f"{float(f'{scale:.3g}'):.0f}"
    return f"{digits}e{int(power_of_ten)}" if plain else rf"{digits}\!\times\!10^{{{int(power_of_ten)}}}"


HEADER = ("protocol", "form", "a", "b", "α", "c", "β", "k", "RMSE", "LOO", "ΔAICc")


def rows(laws):
    """Of {protocol: law}, a row for each protocol and form that was fitted: the study's form, the winner, the rest.

    Lists of texts, in the order of HEADER.
    """
    rows = []
    for protocol, law in laws.items():
        fits = law["forms"]
        least = min(fit["aicc"] for fit in fits.values() if fit["aicc"] is not None)
        for form in sorted(fits, key=lambda form: (form != "additive", form != law["winner"])):
            fit = fits[form]
            marks = [" (best)"] if form == law["winner"] else []
            marks += [" (no law)"] if form == "additive" and not is_law(law) else []
            marks += [f" ({law['verdict']})"] if form == "additive" and law["verdict"] in ONLY.values() else []
            marks += [f" ({', '.join(fit['bounds_hit'])})"] if fit["bounds_hit"] else []
            coefficients = [_with_error(fit["coefficients"].get(name)) for name in NATURAL]
            quality = [f"{fit['rmse']:.4f}", f"{fit['loo_rmse']:.4f}"]
            quality.append("" if fit["aicc"] is None else f"{fit['aicc'] - least:.1f}")
            rows.append([protocol, form + "".join(marks), *coefficients, *quality])
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


def markdown(modality, laws):
    """The fitted forms of a modality, {protocol: law}, as a markdown table of coefficients ± one standard error."""
    lines = [f"| {modality}: {HEADER[0]} | " + " | ".join(HEADER[1:]) + " |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows(laws)]) + "\n"


def latex(modality, laws):
    r"""The same as a LaTeX tabular (booktabs)."""
    symbols = {"α": r"$\alpha$", "β": r"$\beta$", "ΔAICc": r"$\Delta$AICc", "±": r"$\pm$", "×/÷": r"$\times/\div$"}

    def line(row):
        text = " & ".join(row) + r" \\"
        for plain, command in symbols.items():
            text = text.replace(plain, command)
        return re.sub(r"([\d.]+)e([+-]?)0*(\d+)", r"$\1\\times10^{\2\3}$", text).replace("{+", "{")

    head = [r"\begin{tabular}{ll" + "r" * (len(HEADER) - 2) + "}", r"\toprule", line(HEADER), r"\midrule"]
    body = [line(row) for row in rows(laws)]
    return "\n".join([f"% {modality}", *head, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"
