"""Rotary tables from integers: the same bits on every machine (docs/arithmetic.md, section 5)."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

BITS = 128  # fractional bits of the working precision; 30 are kept
KEPT = 30
FULL_TURN = 6.283185307179586


def frequencies(rotary, base, scaling):
    """Radians a position of each pair, float32 `[rotary / 2]`.

    `scaling`: None, ("linear", factor) or ("llama3", factor, low_freq_factor, high_freq_factor, original context).
    """
    shares = np.arange(0, rotary, 2, dtype=np.float32) / np.float32(rotary)
    with localcontext() as context:
        context.prec = 60
        powers = np.array([_nearest_float32(Decimal(base) ** Decimal(float(share))) for share in shares])
    found = np.float32(1) / powers
    if scaling and scaling[0] == "linear":
        found = (found.astype(np.float64) / scaling[1]).astype(np.float32)
    elif scaling:
        found = np.array([_llama3(float(f), *scaling[1:]) for f in found], dtype=np.float32)
    return found


def tables(rates, positions):
    """(cosines, sines) of positions 0 … positions - 1, float32 `[positions, len(rates)]`, given `frequencies`."""
    steps = [_cosine_sine(Fraction(float(rate))) for rate in rates]
    unit = 1 << BITS
    found = np.empty((2, positions, len(rates)), dtype=np.int64)
    half, drop = 1 << (BITS - KEPT - 1), BITS - KEPT
    for j, (cosine, sine) in enumerate(steps):
        c, s = unit, 0
        column = []
        for _ in range(positions):
            column.append(((c + half) >> drop, (s + half) >> drop))
            c, s = (c * cosine - s * sine) >> BITS, (s * cosine + c * sine) >> BITS
        found[:, :, j] = np.array(column).T
    return tuple(found.astype(np.float32) * np.float32(2.0**-KEPT))


def _nearest_float32(value):
    """The float32 nearest to a positive Decimal: by its own bits, since two roundings are not one."""
    value = Fraction(value)
    guess = np.float32(float(value))
    around = (np.nextafter(guess, np.float32(0)), guess, np.nextafter(guess, np.float32(np.inf)))
    return min(around, key=lambda f: abs(Fraction(float(f)) - value))


def _cosine_sine(angle):
    """Cosine and sine of a Fraction in [0, 8), as integers with BITS fractional bits, by Taylor's series."""
    x = (angle.numerator << BITS) // angle.denominator
    sums, term, n = [0, 0, 0, 0], 1 << BITS, 0
    while term:
        sums[n % 4] += term
        n += 1
        term = (term * x >> BITS) // n
    return sums[0] - sums[2], sums[1] - sums[3]


def _llama3(rate, factor, low, high, original):
    length = FULL_TURN / rate
    if length < original / high:
        return rate
    if length > original / low:
        return rate / factor
    share = (original / length - low) / (high - low)
    return (1 - share) * rate / factor + share * rate
