"""Operations of docs/arithmetic.md in torch, for a GPU or a processor: exact products of int8 digits, and elementwise.

There is a torch operation for each operation of the page, so that none is fused into a multiply-add, and no divisor is
a Python number, which CUDA would replace by a product with its inverse. Where the page says *error*, a row's power of
two is NaN.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from bitlaw.models.exact import arithmetic
from bitlaw.models.exact.arithmetic import GELU, GELU_TANH, LEAST, OVERFLOW

UNIT = 16  # sizes of products are rounded up to multiples of this: CUDA takes multiples of 8, and more than 16 rows
INPUTS = 1 << 16  # of one product: sums of so many products of digits, and two or three of these, fit in 32 bits
ELEMENTS = 1 << 23  # sums that are held at once, of about 40 bytes each
Q15, Q24 = 140, 149
NAN = float("nan")


class Matrix(NamedTuple):
    """Integers as digits, int8 `[2, outputs, inputs]`, sizes rounded up; 2^e and bias of each output, float32."""

    digits: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor


def up(count):
    """`count` rounded up to a multiple of UNIT."""
    return -(-count // UNIT) * UNIT


# --- integers and products ------------------------------------------------------------------------------------------


def power_of_two(exponent):
    """2^exponent, float32, of int32 exponents from -126 to 127."""
    return ((exponent + 127) << 23).view(torch.float32)


def quantise(x, bits):
    """Rows of float32 as (integers in float32, 2^e float32 `[..., 1]`, NaN if a row is too large); bits: Q15 or Q24."""
    largest = (x.contiguous().view(torch.int32) & 0x7FFFFFFF).amax(-1, keepdim=True) >> 23
    exponent = largest.clamp(LEAST, OVERFLOW) - bits
    return (x * power_of_two(-exponent)).round(), torch.where(largest >= OVERFLOW, NAN, power_of_two(exponent))


def split(q, count):
    """Integers as `count` signed digits to base 256, int8 `[count, ...]`, the highest first."""
    digits = []
    for _ in range(count - 1):
        higher = (q + 128) >> 8
        digits.append(q - (higher << 8))
        q = higher
    return torch.stack([q, *reversed(digits)]).to(torch.int8)


def digits_of_rows(x):
    """Rows of float32 as (digits of their Q15 integers, int8 `[2, ...]`, 2^e as `quantise`)."""
    q, scale = quantise(x, Q15)
    return split(q.to(torch.int32), 2), scale


def products(a, b):
    """Exact sums, float64 `[groups, rows, outputs]`, of digits int8 `[groups, digits, rows or outputs, inputs]`.

    Outputs and inputs are multiples of UNIT. The digits of a group are rows and columns of one product, so that each of
    the one side meets each of the other; what has the same weight is added in 32 bits, the rest in float64, exact below
    2^53.
    """
    (groups, high, rows, inputs), (wide, outputs) = a.shape, b.shape[1:3]
    a = pad(a, (0, 0, 0, -rows % UNIT))
    total = 0
    for first in range(0, inputs, INPUTS):
        left, right = (t[..., first : first + INPUTS].flatten(1, 2).contiguous() for t in (a, b))
        sums = torch.empty((groups, left.shape[1], right.shape[1]), dtype=torch.int32, device=a.device)
        for group in range(groups):
            if a.device.type == "cpu" and not _int_mm_adds_exactly():
                torch.mm(left[group].int(), right[group].t().int(), out=sums[group])
            else:
                torch._int_mm(left[group], right[group].t(), out=sums[group])
        sums = sums.view(groups, high, -1, wide, outputs)[:, :, :rows]
        part = 0
        for weight in range(high + wide - 1):
            same = [sums[:, i, :, weight - i] for i in range(high) if 0 <= weight - i < wide]
            part = part * 256 + sum(same[1:], same[0]).double()
        total = total + part
    return total


@cache
def _int_mm_adds_exactly():
    """Whether products of int8 matrices are exact on this processor.

    Where it has no VNNI instructions, the library below torch adds pairs of products in 16 bits, which saturate.
    """
    extremes = torch.tensor([-128, 127], dtype=torch.int8).repeat_interleave(UNIT).expand(4 * UNIT, -1).contiguous()
    sums = torch._int_mm(extremes.t().contiguous(), extremes)
    return torch.equal(sums.double(), extremes.double().t() @ extremes.double())


def linear(x, matrix):
    """A linear layer of rows of float32 `[rows, inputs]`: `[rows, outputs rounded up]`."""
    inputs, outputs = matrix.digits.shape[2], len(matrix.scale)
    out, rows = torch.empty((len(x), outputs), device=x.device), up(ELEMENTS // outputs)
    for part, target in zip(x.split(rows), out.split(rows), strict=True):
        digits, scale = digits_of_rows(part)
        sums = products(pad(digits, (0, inputs - x.shape[1]))[None], matrix.digits[None])[0]
        target.copy_(sums)  # rounds once
        target.mul_(scale).mul_(matrix.scale).add_(matrix.bias)
    return out


# --- elementwise ----------------------------------------------------------------------------------------------------


def norm(x, gain, bias, epsilon):
    """Layer norm of rows of float32, or without a bias (None) RMS norm; epsilon is a float64 tensor."""
    q, scale = quantise(x, Q24)
    q, unit = q.long(), scale.double()
    count = torch.full((), x.shape[-1], dtype=torch.float64, device=x.device)
    variance = (q * q).sum(-1, keepdim=True).double() / count
    if bias is not None:
        mean = q.sum(-1, keepdim=True).double() / count
        variance = (variance - mean * mean).clamp(min=0)
    inverse = (variance * unit * unit + epsilon).sqrt().reciprocal().float()
    if bias is None:
        return x * inverse * gain
    return (x - (mean * unit).float()) * inverse * gain + bias


def _horner(coefficients, t):
    p = torch.full_like(t, float(coefficients[0]))
    for coefficient in coefficients[1:]:
        p.mul_(t).add_(float(coefficient))
    return p


def exponential(difference):
    """(p, k) with e^difference = p 2^k for float32 differences <= 0: p float32, k int32."""
    y = (difference * float(arithmetic.LOG2_E)).clamp_(min=float(arithmetic.LOWEST))
    k = (y - 0.5).to(torch.int32)  # towards zero
    return _horner([getattr(arithmetic, f"C{i}") for i in range(6, -1, -1)], y - k.float()), k


def _sigmoid(x):
    p, k = exponential(-x.abs())
    small = p * power_of_two(k)
    return torch.where(x >= 0, 1, small) / (small + 1)


def _erf(x):
    z = x.clamp(-float(arithmetic.ERF_END), float(arithmetic.ERF_END))
    t = z * z
    over, under = (
        _horner([getattr(arithmetic, f"{letter}{i}") for i in range(degree, -1, -1)], t)
        for letter, degree in (("A", 4), ("B", 6))
    )
    return z * over / under


def activate(x, activation):
    """GELU, GELU_TANH or SILU of float32."""
    if activation == GELU:
        return x * 0.5 * (_erf(x * float(arithmetic.SQRT_HALF)) + 1)
    if activation == GELU_TANH:
        return x * _sigmoid((x * x * float(arithmetic.TANH_CUBE) * x + x) * float(arithmetic.TANH_SCALE))
    return x * _sigmoid(x)
