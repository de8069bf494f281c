"""Whether the additive law holds: does the ratio fall with size and with training, by a power, beyond its scatter?"""

import numpy as np
import scipy.stats

from bitlaw.analysis.block_bootstrap import LEVEL
from bitlaw.laws.forms import SIZE, TERMS, TRAINING


def is_law(law):
    """Whether `law` (a dict as `fitting.fit` returns it, or None) is one that the data support."""
    return law is not None and law["verdict"] == "law"


def is_identified(law, exponent):
    """Whether the exponent ("alpha", "beta") has a value and a 95 % interval with two ends."""
    interval = law["profile"][exponent]
    unbounded = interval["low_unbounded"] or interval["high_unbounded"]
    return law["coefficients"][exponent]["value"] is not None and not unbounded


def term_tests(problem, objective, without):
    """{b, c, both}: p of the F test of the additive law against the fit without a term; None where nothing is free.

    objective: the law's sum of squares; without: {b, c, both: the sum of squares of the fit without size term, without
    training term, of a constant}.
    """
    degrees = len(problem.response) - len(problem.names)
    if degrees == 0:
        return dict.fromkeys(without)
    p = {}
    for terms, squares in without.items():
        dropped = 4 if terms == "both" else 2
        gain = max(squares - objective, 0.0) / dropped
        p[terms] = float(scipy.stats.f.sf(gain / (objective + problem.rounding) * degrees, dropped, degrees))
    return p


def reasons_against(law):
    """Sentences that say why `law` is none; empty when the ratio falls with size and with training, beyond scatter."""
    columns = {SIZE: np.array(law["params"]), TRAINING: np.array(law["steps"])}
    ratio = np.array(law["ratio"])
    reasons = []
    for term, other, others in ((TRAINING, SIZE, "sizes"), (SIZE, TRAINING, "steps")):
        along, across = columns[term], columns[other]
        groups = [across == value for value in np.unique(across)]
        groups = [group for group in groups if len(np.unique(along[group])) > 1]
        rising = sum(np.polyfit(np.log(along[group]), ratio[group], 1)[0] > 0 for group in groups)
        at_bound = [bound for bound in law["bounds_hit"] if bound.startswith(f"{term.exponent} = ")]
        if 2 * rising > len(groups):
            reasons.append(f"ratio rises with {term.variable} at {rising} of {len(groups)} {others}")
        elif f"{term.scale} = 0" in law["bounds_hit"]:
            reasons.append(f"ratio does not fall with {term.variable}")
        elif at_bound:
            reasons.append(f"ratio follows no power of {term.variable} ({at_bound[0]} is a bound)")
    if law["term_tests"]["both"] is None:
        reasons.append(f"{law['n']} cells for {len(law['coefficients'])} coefficients test nothing")
    elif not reasons and law["term_tests"]["both"] > 1 - LEVEL:
        reasons.append(f"ratio is constant within scatter (F test, p = {law['term_tests']['both']:.2g})")
    return reasons


def warnings(law):
    """Sentences on what a reader of the law's numbers must know."""
    out = [f"{reason}: no law of this form" for reason in law["verdict_reasons"]]
    for term in TERMS:
        if (p := law["term_tests"][term.scale]) is not None and p > 1 - LEVEL:
            out.append(f"ratio does not fall with {term.variable} beyond scatter (F test, p = {p:.2g})")
    for bound in law["bounds_hit"]:
        out.append(f"{bound} is a bound: the errors of the other coefficients are given that")
    if law["share_agreeing"] < 0.5:
        out.append(f"only {law['share_agreeing']:.0%} of the starts end at the best objective")
    return out
