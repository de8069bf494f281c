"""The elementwise operations of docs/arithmetic.md, compiled: powers of two, rows of integers, exponentials, norms.

Every function here is a chain of single IEEE-754 operations; numba without fastmath neither reorders nor contracts
them. The loops have no branches and no indices that may be negative, so that they become vector instructions.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bitlaw.runtime.compiling import compiled, not_inlined

VERSION = 1  # of docs/arithmetic.md
TOO_LARGE = "an activation of the model is infinite, not a number, or 2^120 and more"
LEAST, OVERFLOW = 80, 247  # biased exponents: a row's is raised to the first and must stay below the second


def _float32(bits):
    return np.uint32(bits).view(np.float32)


LOG2_E = _float32(0x3FB8AA3B)
_TAYLOR = (0x3F800000, 0x3F317218, 0x3E75FDF0, 0x3D635847, 0x3C1D955B, 0x3AAEC3FF, 0x39218489)  # (ln 2)^j / j!
C0, C1, C2, C3, C4, C5, C6 = map(_float32, _TAYLOR)
ERF_END = _float32(0x406F9C68)  # 3.74392128
A0, A1, A2, A3, A4 = map(_float32, (0x3F906EBA, 0x3E3DA740, 0x3D50B6EB, 0x3B5F5DA2, 0x39702D51))
_DENOMINATOR = (0x3F800000, 0x3EFEB44A, 0x3DE34C21, 0x3C6687D4, 0x3A856D28, 0x37C588DF, 0xB3FD3906)
B0, B1, B2, B3, B4, B5, B6 = map(_float32, _DENOMINATOR)
SQRT_HALF = _float32(0x3F3504F3)
TANH_CUBE, TANH_SCALE = _float32(0x3D372713), _float32(0x3FCC422A)  # 0.044715 and 2 sqrt(2 / pi)
ZERO, HALF, ONE, LOWEST = np.float32(0), np.float32(0.5), np.float32(1), np.float32(-60)
# adding this rounds a float32 of magnitude <= 2^22 to an integer, ties to even, and leaves it in the lower bits
ROUNDER, ROUNDER_BITS = np.float32(12582912), np.int32(0x4B400000)
ABSOLUTE, INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)


@intrinsic
def float_bits(typingctx, x):
    """The bits of a float32 as an int32."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def bits_float(typingctx, bits):
    """The float32 of int32 bits."""
    return types.float32(types.int32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def round_even(typingctx, x):
    """A float32 rounded to an integer, ties to even."""

    def generate(context, builder, sig, args):
        return builder.call(builder.module.declare_intrinsic("llvm.roundeven", [ir.FloatType()]), args)

    return types.float32(types.float32), generate


@njit(inline="always")
def power_of_two(exponent):
    """2^exponent, float32, for an int32 exponent from -126 to 127."""
    return bits_float(np.int32((exponent + np.int32(127)) << np.int32(23)))


@njit(inline="always")
def to_integer(x):
    """rint(x) of a float32 of magnitude up to 2^22, as an int32."""
    return np.int32(float_bits(x + ROUNDER) - ROUNDER_BITS)


@compiled
def largest_exponent(row):
    """Biased exponent field of the largest magnitude in a float32 row: 255 if any is infinite or NaN."""
    found = np.int32(0)
    for i in range(np.uint64(len(row))):
        magnitude = np.int32(float_bits(row[i]) & ABSOLUTE)
        found = magnitude if magnitude > found else found
    return np.int32(found >> np.int32(23))


@njit(inline="always")
def _row_exponent(largest, bits):
    """Exponent of a row's integers from that of its largest magnitude; kept in range where the row is refused."""
    raised = np.int32(LEAST) if largest < np.int32(LEAST) else largest
    return np.int32((np.int32(OVERFLOW) if raised > np.int32(OVERFLOW) else raised) - bits)


@compiled
def quantise(row, out):
    """Fill `out`, an integer or float array, with the Q15 integers of a float32 row.

    Returns (2^e as float32, whether the row is too large); then `out` means nothing.
    """
    not_inlined()
    largest = largest_exponent(row)
    exponent = _row_exponent(largest, np.int32(140))
    scale = power_of_two(np.int32(-exponent))
    for i in range(np.uint64(len(row))):
        out[i] = to_integer(row[i] * scale)
    return power_of_two(exponent), largest >= OVERFLOW


@compiled
def quantise_digits(row, high, low):
    """`quantise` into digits to base 256, int16: q = 256 high + low, -64 <= high <= 64, -128 <= low <= 127."""
    not_inlined()
    largest = largest_exponent(row)
    exponent = _row_exponent(largest, np.int32(140))
    scale = power_of_two(np.int32(-exponent))
    for i in range(np.uint64(len(row))):
        q = to_integer(row[i] * scale)
        h = np.int32((q + np.int32(128)) >> np.int32(8))
        high[i] = np.int16(h)
        low[i] = np.int16(q - np.int32(h << np.int32(8)))
    return power_of_two(exponent), largest >= OVERFLOW


@compiled
def norm(row, gain, bias, epsilon, layer, out):
    """Layer norm (`layer` true) or RMS norm of a float32 row into `out`; returns whether the row is too large."""
    not_inlined()
    n = np.uint64(len(row))
    largest = largest_exponent(row)
    exponent = _row_exponent(largest, np.int32(149))
    scale = power_of_two(np.int32(-exponent))
    total, squares = np.int64(0), np.int64(0)
    for i in range(n):
        q = np.int64(np.int32(round_even(row[i] * scale)))
        total += q
        squares += q * q
    count, unit = np.float64(len(row)), np.float64(power_of_two(exponent))
    mean, variance = np.float64(0.0), np.float64(squares) / count
    if layer:
        mean = np.float64(total) / count
        variance -= mean * mean
        variance = variance if variance > 0.0 else 0.0
    inverse = np.float32(1.0 / math.sqrt(variance * unit * unit + epsilon))
    if layer:
        centre = np.float32(mean * unit)
        for i in range(n):
            out[i] = (row[i] - centre) * inverse * gain[i] + bias[i]
    else:
        for i in range(n):
            out[i] = row[i] * inverse * gain[i]
    return largest >= OVERFLOW


@njit(inline="always")
def exponential(difference):
    """(p, k) with e^difference = p 2^k for a float32 difference <= 0: p float32 in [0.7, 1.42], k int32 in [-60, 0]."""
    y = difference * LOG2_E
    y = y if y > LOWEST else LOWEST
    k = np.int32(y - HALF)
    r = y - np.float32(k)
    p = C6 * r + C5
    p = p * r + C4
    p = p * r + C3
    p = p * r + C2
    p = p * r + C1
    return p * r + C0, k


@njit(inline="always")
def sigmoid(x):
    p, k = exponential(-abs(x))
    small = p * power_of_two(k)
    return (ONE if x >= ZERO else small) / (ONE + small)


@njit(inline="always")
def erf(x):
    z = x if x < ERF_END else ERF_END
    z = z if z > -ERF_END else -ERF_END
    t = z * z
    p = A4 * t + A3
    p = p * t + A2
    p = p * t + A1
    p = p * t + A0
    q = B6 * t + B5
    q = q * t + B4
    q = q * t + B3
    q = q * t + B2
    q = q * t + B1
    q = q * t + B0
    return z * p / q


GELU, GELU_TANH, SILU = 0, 1, 2  # activations


@compiled
def activate(row, activation, gated, out):
    """Activation of a float32 row into `out` `[n]`; gated: the row is n gates, then n numbers they multiply."""
    not_inlined()
    n = np.uint64(len(out))
    if activation == GELU:
        for i in range(n):
            x = row[i]
            out[i] = x * HALF * (ONE + erf(x * SQRT_HALF))
    elif activation == GELU_TANH:
        for i in range(n):
            x = row[i]
            out[i] = x * sigmoid((x * x * TANH_CUBE * x + x) * TANH_SCALE)
    else:
        for i in range(n):
            x = row[i]
            out[i] = x * sigmoid(x)
    if gated:
        other = row[len(out) :]
        for i in range(n):
            out[i] = out[i] * other[i]


@compiled
def turn(head, cosines, sines):
    """Rotary turning of the first 2 len(cosines) numbers of a head, float32, in place."""
    half = len(cosines)
    right = head[half:]
    for i in range(np.uint64(half)):
        a, b = head[i], right[i]
        head[i] = a * cosines[i] - b * sines[i]
        right[i] = b * cosines[i] + a * sines[i]
