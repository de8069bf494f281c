"""Forms of a scaling law of a response over two variables, P (size) and S (training).

Far from the data a coefficient and its exponent trade off along a narrow valley, so every form is fitted in centred
parameters, with x = ln(P/P0), y = ln(S/S0) and P0, S0 the geometric means of the data:

    additive        a + e^(u - alpha x) + e^(v - beta y)                  = a + b P^-alpha + c S^-beta
    coupled         a + (e^((u - alpha x)/k) + e^((v - beta y)/k))^k      = a + (b P^-alpha' + c S^-beta')^k
    multiplicative  a + e^(u - alpha x - beta y)                          = a + b P^-alpha S^-beta

with alpha' = alpha/k and beta' = beta/k (so that alpha is what a term by itself falls with, whatever k is), and
additive0, coupled0: the same with a = 0, and size-only, training-only: the additive form without its other term. The
left side is called centred, the right side natural.
"""

import math
from typing import NamedTuple

import numpy as np

from bitlaw import InputError

EQUATIONS = {
    "additive": "a + b P^-alpha + c S^-beta",
    "additive0": "b P^-alpha + c S^-beta",
    "coupled": "a + (b P^-alpha + c S^-beta)^k",
    "coupled0": "(b P^-alpha + c S^-beta)^k",
    "multiplicative": "a + b P^-alpha S^-beta",
    "size-only": "a + b P^-alpha",
    "training-only": "a + c S^-beta",
}
CENTRED = {
    "additive": ("a", "u", "alpha", "v", "beta"),
    "additive0": ("u", "alpha", "v", "beta"),
    "coupled": ("a", "u", "alpha", "v", "beta", "k"),
    "coupled0": ("u", "alpha", "v", "beta", "k"),
    "multiplicative": ("a", "u", "alpha", "beta"),
    "size-only": ("a", "u", "alpha"),
    "training-only": ("a", "v", "beta"),
}
ADDS_TERMS = ("additive", "size-only", "training-only")  # to a constant: linear, given the exponents
NATURAL = ("a", "b", "alpha", "c", "beta", "k")
BOUNDS = (1e-3, 5.0)  # exponents: below, a power of size is a constant; above, it is a step at the first size
POWERS = (0.05, 20.0)  # bounds of k


class Term(NamedTuple):
    """One of the two terms of a law: what it falls with, and the names of its coefficients."""

    variable: str  # in words
    scale: str  # natural: the factor of the power
    exponent: str  # natural and centred
    centred_scale: str  # logarithm of the term at the middle of the data
    symbol: str  # of the variable, in equations
    alone: str  # the form that has a and this term, no other


SIZE = Term("size", "b", "alpha", "u", "P", "size-only")
TRAINING = Term("training", "c", "beta", "v", "S", "training-only")
TERMS = (SIZE, TRAINING)


def terms_of(form):
    """The terms that `form` adds up; none of the multiplicative one, whose powers cannot be told apart so."""
    return tuple(term for term in TERMS if term.centred_scale in CENTRED[form] and form != "multiplicative")


def variables_of(form):
    """The terms whose variable `form` depends on."""
    return tuple(term for term in TERMS if term.exponent in CENTRED[form])


def centred(form):
    """Names of the centred parameters of `form`; raises InputError when there is no such form."""
    if form not in CENTRED:
        raise InputError(f"law: form {form!r}: choose one of {', '.join(CENTRED)}")
    return CENTRED[form]


def values(form, at, x, y):
    """The response of `form` at x, y, float64 `[n]`, and its slopes in the centred parameters `at`, `[n, len(at)]`.

    at: {name: value} of CENTRED[form]; x, y: float64 `[n]`, see the module. A scale of -inf is a term that vanished.
    """
    if form == "multiplicative":
        both = np.exp(at["u"] - at["alpha"] * x - at["beta"] * y)
        slopes = {"u": both, "alpha": -x * both, "beta": -y * both}
    else:
        size = at.get("u", -math.inf) - at.get("alpha", 0.0) * x
        training, k = at.get("v", -math.inf) - at.get("beta", 0.0) * y, at.get("k", 1.0)
        joint = np.maximum(np.logaddexp(size / k, training / k), -700.0)  # both terms may have vanished
        both = np.exp(np.minimum(k * joint, 700.0))  # an optimiser may try what overflows
        by_size, by_training = (np.exp(term / k - joint) for term in (size, training))
        slopes = {"u": both * by_size, "v": both * by_training}
        slopes |= {"alpha": -x * slopes["u"], "beta": -y * slopes["v"]}
        if "k" in at:
            parts = (share * np.where(share > 0, term, 0.0) / k for share, term in
                     ((by_size, size), (by_training, training)))  # fmt: skip
            slopes["k"] = both * (joint - sum(parts))
    slopes["a"] = np.ones_like(x)
    return at.get("a", 0.0) + both, np.column_stack([slopes[name] for name in CENTRED[form]])


def natural(form, at, P0, S0):
    """{name: value} of the natural coefficients, from the centred ones `at`; of b and c their logarithm."""
    k = at.get("k", 1.0)
    power = {name: at[name] / k for name in ("alpha", "beta") if name in at}
    if form == "multiplicative":
        out = {"b": at["u"] + power["alpha"] * math.log(P0) + power["beta"] * math.log(S0)}
    else:
        middles = zip(TERMS, (P0, S0), strict=True)
        out = {term.scale: at[term.centred_scale] / k + power[term.exponent] * math.log(middle)
               for term, middle in middles if term in terms_of(form)}  # fmt: skip
    return {name: at[name] for name in ("a", "k") if name in at} | out | power


def coefficients(form):
    """Names of the natural coefficients of `form`, in order."""
    named = natural(form, dict.fromkeys(centred(form), 1.0), 1.0, 1.0)
    return [name for name in NATURAL if name in named]


def evaluate(form, values, params, steps):
    """The response of `form` at params, steps (arrays that broadcast, positive), float64.

    values: {name: natural coefficient}; a term whose b or c is 0 has vanished and needs no exponent.
    """
    params, steps = np.asarray(params, dtype=np.float64), np.asarray(steps, dtype=np.float64)
    c = values
    if form == "multiplicative":
        return c["a"] + np.exp(math.log(c["b"]) - c["alpha"] * np.log(params) - c["beta"] * np.log(steps))
    terms = np.zeros(np.broadcast(params, steps).shape)
    for term, variable in ((SIZE, params), (TRAINING, steps)):
        if c.get(term.scale):
            terms = terms + np.exp(math.log(c[term.scale]) - c[term.exponent] * np.log(variable))
    return c.get("a", 0.0) + terms ** c.get("k", 1.0)
