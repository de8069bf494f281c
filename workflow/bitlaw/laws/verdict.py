"""Which terms of the additive law the data support: does the ratio fall with size, with training, beyond its scatter?

A term is supported when the fall that it gives is more than scatter (F test of the law against the one without it) and
a power describes it: it has not vanished, its exponent is at no bound, and the ratio does not rise along most lines of
cells. A variable whose term is not supported must leave no trace of its own: a rise beyond scatter, or a fall that no
power describes (a step), is a dependence that the law lacks, and then there is no law at all.
"""

import numpy as np
import scipy.stats

from bitlaw.analysis.block_bootstrap import LEVEL
from bitlaw.laws.forms import SIZE, TERMS, TRAINING

BOTH, NONE = "law in size and training", "no law"
ONLY = {SIZE: "law in size only", TRAINING: "law in training only"}
GREEK = {"alpha": "α", "beta": "β"}


def supported(law):
    """The law with those terms alone that the data support, to be written, drawn and asked; None where there is none.

    law: a dict as `fitting.fit` returns it, or None. A form without a verdict was asked for: it is returned as it is.
    """
    if law is None or law.get("verdict") in (None, BOTH):
        return law
    return law["supported"]


def is_law(law):
    """Whether the data support any term of `law` (a dict as `fitting.fit` returns it, or None)."""
    return supported(law) is not None


def is_identified(law, exponent):
    """Whether the exponent ("alpha", "beta") has a value that the data support and a 95 % interval with two ends."""
    known = supported(law)
    if known is None or known["coefficients"].get(exponent, {}).get("value") is None:
        return False
    interval = known["profile"][exponent]
    return not (interval["low_unbounded"] or interval["high_unbounded"])


def what(law):
    """What the law is of, in a sentence: the ratio, or the name of another response."""
    return "ratio" if law["response"] == "CR" else law["response"]


def term_tests(problem, objective, without, instead):
    """p of F tests, null where nothing is free: {b, c, both, alone, rises, levels}, the last three {b, c}.

    b, c, both: the law against the fit without that term, or without any. alone: a law with that term only against a
    constant. rises, levels: see `profile_intervals.instead_of_a_term`, against nothing in place of that term.

    objective: the law's sum of squares; without: {b, c, both: the sum of squares of the fit without that term, of a
    constant}.
    """
    n = len(problem.response)

    def p(more, less, added, coefficients):
        """Of the F test of a fit with so many `coefficients`, `added` more than another, whose squares are `less`."""
        degrees = n - coefficients
        if degrees <= 0:
            return None
        gain = max(less - more, 0.0) / added
        return float(scipy.stats.f.sf(gain / (more + problem.rounding) * degrees, added, degrees))

    if n <= 5:
        return {**dict.fromkeys(without), **{name: dict.fromkeys("bc") for name in ("alone", *instead)}}
    tests = {terms: p(objective, squares, 4 if terms == "both" else 2, 5) for terms, squares in without.items()}
    other = {"b": "c", "c": "b"}
    tests["alone"] = {scale: p(without[other[scale]], without["both"], 2, 3) for scale in "bc"}
    for name, by_scale in instead.items():
        tests[name] = {scale: p(left, without[scale], more, 3 + more) for scale, (left, more) in by_scale.items()}
    return tests


def judge(law):
    """(terms that the data support, sentences on what they do not) of an additive `law` with its "term_tests"."""
    tests = law["term_tests"]
    if tests["both"] is None:
        return [], [f"{law['n']} cells for {len(law['coefficients'])} coefficients test nothing"]
    against = {term: _no_power(law, term) for term in (TRAINING, SIZE)}
    falls = {term: tests[term.scale] <= 1 - LEVEL for term in TERMS}
    rises = {term: tests["rises"][term.scale] <= 1 - LEVEL for term in TERMS}
    if broken := [reason for term, reason in against.items() if reason and (falls[term] or rises[term])]:
        return [], broken
    terms = [term for term in TERMS if falls[term]]
    if not terms:  # neither is missed as long as the other is there
        alone = [term for term in TERMS if tests["alone"][term.scale] <= 1 - LEVEL]
        if len(alone) == 2:
            return [], ["size and training cannot be told apart: a law in either alone holds as well"]
        terms = [term for term in alone if not against[term]]
    if not terms:
        if tests["both"] > 1 - LEVEL:
            return [], [f"{what(law)} is constant within scatter (F test, p = {tests['both']:.2g})"]
        return [], [f"neither term by itself is more than scatter (F tests, p = {tests['b']:.2g}, {tests['c']:.2g})"]
    return terms, [_not_seen(law, term) for term in TERMS if term not in terms]


def against_alone(law):
    """Sentences against a `law` of one term: its exponent at a bound; none where the data support it."""
    term = next(term for term in TERMS if term.alone == law["form"])
    reason = _no_power(law, term)
    return [reason] if reason else []


def _no_power(law, term):
    """Why no falling power of `term` describes the data, as a sentence; None when one does."""
    columns = {SIZE: np.array(law["params"]), TRAINING: np.array(law["steps"])}
    other, others = {SIZE: (TRAINING, "steps"), TRAINING: (SIZE, "sizes")}[term]
    ratio, along, across = np.array(law["ratio"]), columns[term], columns[other]
    groups = [across == value for value in np.unique(across)]
    groups = [group for group in groups if len(np.unique(along[group])) > 1]
    rising = sum(np.polyfit(np.log(along[group]), ratio[group], 1)[0] > 0 for group in groups)
    at_bound = [bound for bound in law["bounds_hit"] if bound.startswith(f"{term.exponent} = ")]
    if 2 * rising > len(groups):
        return f"{what(law)} rises with {term.variable} at {rising} of {len(groups)} {others}"
    if f"{term.scale} = 0" in law["bounds_hit"]:
        return f"{what(law)} does not fall with {term.variable}"
    if at_bound:
        return f"{what(law)} follows no power of {term.variable} ({at_bound[0]} is a bound)"
    return None


def _not_seen(law, term):
    """The sentence on a term that the data do not support."""
    p, any_function = law["term_tests"][term.scale], law["term_tests"]["levels"][term.scale]
    seen = f"no dependence on {term.variable} seen (F test, p = {p:.2g})"
    if any_function is not None and any_function <= 1 - LEVEL:
        seen = f"no fall with {term.variable} seen (F test, p = {p:.2g}), though values differ by it beyond scatter"
    return f"{seen}: {GREEK[term.exponent]} not identified"


def warnings(law):
    """Sentences on what a reader of the law's numbers must know."""
    none = ": no law of this form" if law["verdict"] == NONE else ""
    out = [f"{reason}{none}" for reason in law["verdict_reasons"]]
    shown = supported(law) or law
    for bound in shown["bounds_hit"]:
        out.append(f"{bound} is a bound: the errors of the other coefficients are given that")
    if shown["share_agreeing"] < 0.5:
        out.append(f"only {shown['share_agreeing']:.0%} of the starts end at the best objective")
    return out
