"""The laws of a study side by side: exponents, exchange rates, and where a law crosses a classical compressor.

The exchange rate of a term b·P^-α is 2^(1/α): so many times the parameters (or steps) halve what the term is above the
asymptote. Its interval is that of the exponent, turned over.
"""

import numpy as np

from bitlaw.analysis.block_bootstrap import TAILS
from bitlaw.laws.bootstrap import responses
from bitlaw.laws.fitting import predict
from bitlaw.laws.forms import SIZE, TERMS, TRAINING, terms_of
from bitlaw.laws.verdict import supported

WORDS = {SIZE: "parameters", TRAINING: "steps"}
POINTS = 400  # sizes at which a crossing is looked for
GENERAL = "gzip"  # stands beside the best compressor of single chunks


def table(laws, classical=None):
    """A row a modality and protocol, dicts; laws: {modality: {protocol: law}} as `model_selection.assess` returns them.

    classical: rows of `classical.measure`, DataFrame, or None. Keys: modality, protocol, verdict, for each exponent its
    value, low and high end (None: not supported, or no end), for parameters and steps the exchange rate and its ends,
    "crossing", sentences.
    """
    rows = []
    for modality, by_protocol in laws.items():
        for protocol, law in by_protocol.items():
            row = {"modality": modality, "protocol": protocol, "verdict": law["verdict"]}
            for term in TERMS:
                value, low, high = exponent(law, term)
                row |= {term.exponent: value, f"{term.exponent}_low": low, f"{term.exponent}_high": high}
            for term in TERMS:
                ends = (row[name] for name in (term.exponent, f"{term.exponent}_high", f"{term.exponent}_low"))
                rates = [None if end is None else _rate(end) for end in ends]
                row |= dict(zip((f"{WORDS[term]}_to_halve{end}" for end in ("", "_low", "_high")), rates, strict=True))
            row["crossing"] = ""
            if classical is not None and protocol == "lossless":
                row["crossing"] = "; ".join(f"{name}: {crossing(law, ratio)}" for name, ratio in
                                            compressors(classical, modality).items())  # fmt: skip
            rows.append(row)
    return rows


def exponent(law, term):
    """(value, low end, high end) of the term's exponent; None where the data do not support it, or for an open end."""
    known = supported(law)
    if known is None or term not in terms_of(known["form"]):
        return None, None, None
    span = known["profile"][term.exponent]
    return known["coefficients"][term.exponent]["value"], span["low"], span["high"]


def _rate(exponent):
    """2^(1/exponent); None beyond 2^100, which is as good as none."""
    return 2 ** (1 / exponent) if exponent > 1e-2 else None


def of_chunks(classical, modality):
    """Ratios of single chunks of the modality, a Series by compressor; those that failed are left out."""
    own = classical[(classical["modality"] == modality) & (classical["scope"] == "chunk")].dropna(subset=["ratio"])
    return own.set_index("compressor")["ratio"]


def compressors(classical, modality):
    """{compressor: ratio of single chunks}: GENERAL and the best of the modality, those that were measured."""
    ratios = of_chunks(classical, modality)
    names = [name for name in (GENERAL, ratios.idxmin() if len(ratios) else None) if name in ratios.index]
    return {name: float(ratios[name]) for name in dict.fromkeys(names)}


def crossing(law, ratio):
    """Where the law at the last step of the data falls to `ratio`, as words, with a 95 % interval over its samples.

    Within the sizes of the data alone: beyond them the answer would rest on the form of the law.
    """
    known = supported(law)
    if known is None:
        return "no law"
    step, sizes = max(known["steps"]), np.geomspace(min(known["params"]), max(known["params"]), POINTS)
    at = _first_below(np.broadcast_to(predict(known, sizes, step), sizes.shape), ratio)
    drawn = responses(known, sizes, np.full(POINTS, step)) if known.get("samples") else np.empty((0, POINTS))
    found = [_first_below(curve, ratio) for curve in drawn]
    first, last = f"{sizes[0]:.3g}", f"{sizes[-1]:.3g}"
    if at == POINTS:
        reached = f", {sum(place < POINTS for place in found)} of {len(found)} draws" if found else ""
        return f"not in reach of these data (up to {last} parameters{reached})"
    text = f"below at all sizes, from {first} on" if at == 0 else f"crossed at {sizes[at]:.3g} parameters"
    if not found:
        return text
    low, high = np.rint(np.percentile(found, TAILS)).astype(int)
    ends = [f"below {first}" if place == 0 else f"above {last}" if place >= POINTS else f"{sizes[place]:.3g}"
            for place in (low, high)]  # fmt: skip
    return text if low == high == 0 else f"{text} (95 %: {ends[0]} to {ends[1]})"


def _first_below(curve, ratio):
    """Index of the first size at which the curve is at or below `ratio`; its length where it never is."""
    below = np.flatnonzero(curve <= ratio)
    return int(below[0]) if len(below) else len(curve)
