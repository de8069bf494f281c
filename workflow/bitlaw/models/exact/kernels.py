"""Fused kernels of docs/arithmetic.md, in Triton: rows of integers and linear layers; what other kernels share.

They give the integers and floats of `arithmetic_torch`, to the last bit; a linear layer reads digits and writes floats,
with nothing in memory between. Kernels are compiled without contraction to fused multiply-adds (UNFUSED); they have no
exp, no rounding function and no float32 division, which a compiler might approximate. Import it where `runtime.fused`
says that kernels are usable: it needs Triton.
"""

import torch
import triton
import triton.language as tl

from bitlaw.models.exact import arithmetic
from bitlaw.models.exact import arithmetic_torch as exact
from bitlaw.models.exact.arithmetic_torch import INPUTS

UNFUSED = {"enable_fp_fusion": False}

Q15, LEAST, OVERFLOW = (tl.constexpr(n) for n in (exact.Q15, arithmetic.LEAST, arithmetic.OVERFLOW))
LOG2_E, LOWEST = tl.constexpr(float(arithmetic.LOG2_E)), tl.constexpr(float(arithmetic.LOWEST))
C0, C1, C2, C3, C4, C5, C6 = (tl.constexpr(float(getattr(arithmetic, f"C{i}"))) for i in range(7))
ROUNDER, ROUNDER_BITS = tl.constexpr(float(arithmetic.ROUNDER)), tl.constexpr(int(arithmetic.ROUNDER_BITS))


# --- elementwise ----------------------------------------------------------------------------------------------------


@triton.jit
def power_of_two(exponent):
    """2^exponent, float32, of int32 exponents from -126 to 127."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def to_integer(x):
    """rint(x) of float32 of magnitude up to 2^22, int32: the sum rounds, ties to even, and holds it in its bits."""
    return (x + ROUNDER).to(tl.int32, bitcast=True) - ROUNDER_BITS


@triton.jit
def exponential(difference):
    """(p, k) with e^difference = p 2^k for float32 differences <= 0: p float32, k int32."""
    y = difference * LOG2_E
    y = tl.where(y > LOWEST, y, LOWEST)
    k = (y - 0.5).to(tl.int32)  # towards zero
    r = y - k.to(tl.float32)
    p = C6 * r + C5
    p = p * r + C4
    p = p * r + C3
    p = p * r + C2
    p = p * r + C1
    return p * r + C0, k


# --- rows of integers -----------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["rows"])
def _digits_of_rows(
    x, stride, rows, count, digits, digit_stride, width, scales, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """ROWS rows a program, BLOCK numbers at a time: `count` numbers to digits, `width` of them, and 2^e."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    x_row, to_row, exists = x + row[:, None] * stride, digits + row[:, None] * width, row[:, None] < rows
    largest = tl.zeros([ROWS, BLOCK], tl.int32)
    for first in range(0, count, BLOCK):
        at = first + tl.arange(0, BLOCK)[None, :]
        bits = tl.load(x_row + at, mask=exists & (at < count), other=0.0).to(tl.int32, bitcast=True)
        largest = tl.maximum(largest, bits & 0x7FFFFFFF)
    field = tl.max(largest, 1) >> 23
    exponent = tl.minimum(tl.maximum(field, LEAST), OVERFLOW) - Q15
    for first in range(0, width, BLOCK):
        at = first + tl.arange(0, BLOCK)[None, :]
        numbers = tl.load(x_row + at, mask=exists & (at < count), other=0.0)
        q = to_integer(numbers * power_of_two(-exponent)[:, None])
        high = (q + 128) >> 8
        tl.store(to_row + at, high.to(tl.int8), mask=exists & (at < width))
        tl.store(to_row + digit_stride + at, (q - (high << 8)).to(tl.int8), mask=exists & (at < width))
    tl.store(scales + row, tl.where(field >= OVERFLOW, float("nan"), power_of_two(exponent)), mask=row < rows)


def digits_of_rows(x, width=None):
    """`arithmetic_torch.digits_of_rows` of `[..., n]`; `width`: zeros follow the n digits up to so many."""
    count = x.shape[-1]
    width = width or count
    rows = x.reshape(-1, count)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    digits = torch.empty((2, len(rows), width), dtype=torch.int8, device=x.device)
    scales = torch.empty((len(rows), 1), device=x.device)
    block, together = row_tiles(width)
    if len(rows):
        _digits_of_rows[(triton.cdiv(len(rows), together),)](
            *(rows, rows.stride(0), len(rows), count, digits, digits.stride(0), width, scales),
            **{"ROWS": together, "BLOCK": block},
            **UNFUSED,
        )
    return digits.view(2, *x.shape[:-1], width), scales.view(*x.shape[:-1], 1)


def row_tiles(width):
    """(numbers at a time, rows) of a program, for rows of `width`."""
    block = min(1024, triton.next_power_of_2(width))
    return block, 1024 // block


# --- linear layers --------------------------------------------------------------------------------------------------


@triton.jit
def _linear(
    x, x_digit, x_scales, w, w_digit, w_scales, biases, out, out_stride, rows, outputs, columns, inputs,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS_: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """A tile of ROWS rows and OUTPUTS outputs a program; TOGETHER tiles of rows share weights in the card's cache.

    `outputs` rows of w exist, `columns` of them are stored.
    """
    tiles, blocks = tl.cdiv(rows, ROWS), tl.cdiv(columns, OUTPUTS)
    band = tl.program_id(0) // (TOGETHER * blocks)
    within = tl.program_id(0) % (TOGETHER * blocks)
    together = tl.minimum(tiles - band * TOGETHER, TOGETHER)
    row = (band * TOGETHER + within % together) * ROWS + tl.arange(0, ROWS)
    column = within // together * OUTPUTS + tl.arange(0, OUTPUTS)
    at = tl.arange(0, INPUTS_)
    x_at = x + row[:, None].to(tl.int64) * inputs + at[None, :]
    w_at = w + column[:, None].to(tl.int64) * inputs + at[None, :]
    high = tl.zeros([ROWS, OUTPUTS], tl.int32)
    middle = tl.zeros([ROWS, OUTPUTS], tl.int32)
    low = tl.zeros([ROWS, OUTPUTS], tl.int32)
    for first in range(0, inputs, INPUTS_):
        x_there = (row[:, None] < rows) & (first + at[None, :] < inputs)
        w_there = (column[:, None] < outputs) & (first + at[None, :] < inputs)
        x_high = tl.load(x_at, mask=x_there, other=0)
        x_low = tl.load(x_at + x_digit, mask=x_there, other=0)
        w_high = tl.trans(tl.load(w_at, mask=w_there, other=0))
        w_low = tl.trans(tl.load(w_at + w_digit, mask=w_there, other=0))
        high = tl.dot(x_high, w_high, high, out_dtype=tl.int32)
        middle = tl.dot(x_high, w_low, middle, out_dtype=tl.int32)
        middle = tl.dot(x_low, w_high, middle, out_dtype=tl.int32)
        low = tl.dot(x_low, w_low, low, out_dtype=tl.int32)
        x_at += INPUTS_
        w_at += INPUTS_
    sums = (high.to(tl.int64) << 16) + (middle.to(tl.int64) << 8) + low.to(tl.int64)
    x_scale = tl.load(x_scales + row, mask=row < rows, other=1.0)
    w_scale = tl.load(w_scales + column, mask=column < outputs, other=1.0)
    bias = tl.load(biases + column, mask=column < outputs, other=0.0)
    y = sums.to(tl.float32) * x_scale[:, None] * w_scale[None, :] + bias[None, :]
    there = (row[:, None] < rows) & (column[None, :] < columns)
    tl.store(out + row[:, None].to(tl.int64) * out_stride + column[None, :], y, mask=there)


def linear(x, matrix, out=None):
    """`arithmetic_torch.linear`; `out`, if given, float32 `[rows, up to as many outputs as there are]`, is filled."""
    rows, (outputs, inputs) = len(x), matrix.digits.shape[1:]
    if inputs > INPUTS:  # sums of digits would not fit in 32 bits
        found = exact.linear(x, matrix)
        return found if out is None else out.copy_(found[:, : out.shape[1]])
    out = torch.empty((rows, outputs), device=x.device) if out is None else out
    digits, scales = digits_of_rows(x, inputs)
    launch_linear(_linear, digits, scales, matrix, out)
    return out


def linear_tiles(rows):
    """(tile's rows, outputs, inputs, tiles together, warps, stages) for so many rows."""
    return (16, 64, 128, 1, 4, 4) if rows <= 16 else (64, 128, 64, 8, 4, 4) if rows <= 64 else (128, 128, 64, 8, 8, 3)


def launch_linear(kernel, digits, scales, matrix, out):
    """Start `kernel`, which is `_linear`, for digits int8 `[2, rows, inputs]`."""
    rows, columns = out.shape
    outputs, inputs = matrix.digits.shape[1:]
    tile, block, depth, together, warps, stages = linear_tiles(rows)
    if rows:
        kernel[(triton.cdiv(rows, tile) * triton.cdiv(columns, block),)](
            *(digits, digits.stride(0), scales, matrix.digits, matrix.digits.stride(0), matrix.scale, matrix.bias),
            *(out, out.stride(0), rows, outputs, columns, inputs),
            **{"ROWS": tile, "OUTPUTS": block, "INPUTS_": depth, "TOGETHER": together},
            **UNFUSED, num_warps=warps, num_stages=stages,
        )  # fmt: skip
