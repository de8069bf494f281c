"""The attention of docs/arithmetic.md as one fused kernel, in Triton: never an array of queries × keys in memory.

Exponentials are relative to a query's largest score, so each program passes over the keys twice: for the largest score
and the largest exponent of the values, then for weights and sums. The result is that of `digits`, to the last bit.
Import it where `runtime.fused` says that kernels are usable: it needs Triton.
"""

import torch
import triton
import triton.language as tl

from bitlaw.models.exact.arithmetic_torch import INPUTS
from bitlaw.models.exact.kernels import UNFUSED, exponential, power_of_two, to_integer

LARGEST_HEAD = 256  # head_dim whose sums fit in a multiprocessor's registers


@triton.jit
def _scores(q_high, q_low, q_scale, k, k_scales, position, key, at, positions, PADDED: tl.constexpr):
    """(scores of queries × keys, which are visible); what is infinite above or not a number is infinite."""
    there = (key[:, None] < positions) & (at[None, :] < PADDED)
    k_at = k + key[:, None] * PADDED + at[None, :]
    k_high = tl.trans(tl.load(k_at, mask=there, other=0))
    k_low = tl.trans(tl.load(k_at + positions * PADDED, mask=there, other=0))
    high = tl.dot(q_high, k_high, out_dtype=tl.int32)
    middle = tl.dot(q_high, k_low, out_dtype=tl.int32)
    middle = tl.dot(q_low, k_high, middle, out_dtype=tl.int32)
    low = tl.dot(q_low, k_low, out_dtype=tl.int32)
    sums = (high.to(tl.int64) << 16) + (middle.to(tl.int64) << 8) + low.to(tl.int64)
    k_scale = tl.load(k_scales + key, mask=key < positions, other=1.0)
    scores = sums.to(tl.float32) * q_scale[:, None] * k_scale[None, :]
    visible = key[None, :] <= position[:, None]
    return tl.where(scores == scores, scores, float("inf")), visible


@triton.jit
def _exponents(scales, at, positions):
    """e of scales 2^e; of a scale that is not a number, 128: its scores are not numbers, either."""
    return (tl.load(scales + at, mask=at < positions, other=1.0).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit(do_not_specialize=["past", "tokens"])
def _attend(
    q, q_digit, q_scales, k, k_scales, v, v_scales, out, past, tokens, positions,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of QUERIES tokens, one head, one sequence a program. The last tokens, which see most keys, begin."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    sequence, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    of_cache = (sequence * KV_HEADS + head * KV_HEADS // HEADS).to(tl.int64)
    k += of_cache * 2 * positions * PADDED
    v += of_cache * 2 * positions * PADDED
    k_scales += of_cache * positions
    v_scales += of_cache * positions
    token = block * QUERIES + tl.arange(0, QUERIES)
    position = past + token
    query = (sequence.to(tl.int64) * tokens + token) * HEADS + head
    at = tl.arange(0, WIDTH)
    own = (token[:, None] < tokens) & (at[None, :] < SIZE)
    q_high = tl.load(q + query[:, None] * SIZE + at[None, :], mask=own, other=0)
    q_low = tl.load(q + q_digit + query[:, None] * SIZE + at[None, :], mask=own, other=0)
    q_scale = tl.load(q_scales + query, mask=token < tokens, other=1.0)
    end = past + tl.minimum((block + 1) * QUERIES, tokens)

    # the largest score of each query, and the largest exponent of the values that it sees
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    largest = tl.full([QUERIES], -126, tl.int32)
    for first in range(0, end, KEYS):
        key = first + tl.arange(0, KEYS)
        scores, visible = _scores(q_high, q_low, q_scale, k, k_scales, position, key, at, positions, PADDED)
        top = tl.maximum(top, tl.max(tl.where(visible, scores, float("-inf")), 1))
        exponents = _exponents(v_scales, key, positions)
        largest = tl.maximum(largest, tl.max(tl.where(visible, exponents[None, :], -126), 1))
    good = (top > float("-inf")) & (top < float("inf"))
    top = tl.where(good, top, 0.0)

    total = tl.zeros([QUERIES], tl.int64)
    # sums of digits of weights and values, of weight 2^24, 2^16, 2^8 and 1
    sums3 = tl.zeros([QUERIES, WIDTH], tl.int32)
    sums2 = tl.zeros([QUERIES, WIDTH], tl.int32)
    sums1 = tl.zeros([QUERIES, WIDTH], tl.int32)
    sums0 = tl.zeros([QUERIES, WIDTH], tl.int32)
    for first in range(0, end, KEYS):
        key = first + tl.arange(0, KEYS)
        scores, visible = _scores(q_high, q_low, q_scale, k, k_scales, position, key, at, positions, PADDED)
        p, exponent = exponential(tl.where(visible & good[:, None], scores - top[:, None], 0.0))
        u = p * power_of_two(exponent + 22)
        total += tl.sum(tl.where(visible, to_integer(u), 0), 1).to(tl.int64)  # at most 2^22 each
        shift = _exponents(v_scales, key, positions)[None, :] - largest[:, None]
        shift = tl.minimum(tl.maximum(shift, -126), 0)
        weights = tl.where(visible, to_integer(u * power_of_two(shift)), 0)
        higher = (weights + 128) >> 8
        highest = (higher + 128) >> 8
        w_high, w_middle = highest.to(tl.int8), (higher - (highest << 8)).to(tl.int8)
        w_low = (weights - (higher << 8)).to(tl.int8)
        v_at = v + at[:, None].to(tl.int64) * positions + key[None, :]
        there = (at[:, None] < PADDED) & (key[None, :] < positions)
        v_high = tl.trans(tl.load(v_at, mask=there, other=0))
        v_low = tl.trans(tl.load(v_at + positions * PADDED, mask=there, other=0))
        sums3 = tl.dot(w_high, v_high, sums3, out_dtype=tl.int32)
        sums2 = tl.dot(w_high, v_low, sums2, out_dtype=tl.int32)
        sums2 = tl.dot(w_middle, v_high, sums2, out_dtype=tl.int32)
        sums1 = tl.dot(w_middle, v_low, sums1, out_dtype=tl.int32)
        sums1 = tl.dot(w_low, v_high, sums1, out_dtype=tl.int32)
        sums0 = tl.dot(w_low, v_low, sums0, out_dtype=tl.int32)
    sums = (sums3.to(tl.int64) << 24) + (sums2.to(tl.int64) << 16) + (sums1.to(tl.int64) << 8) + sums0.to(tl.int64)
    quotient = (tl.full([QUERIES], 1.0, tl.float64) / total.to(tl.float64)).to(tl.float32)
    factor = tl.where(good, quotient, float("nan")) * power_of_two(largest)
    to = out + query[:, None] * SIZE + at[None, :]
    tl.store(to, sums.to(tl.float32) * factor[:, None], mask=own)


def fits(head_dim, positions):
    """Whether `attend` can: sums of digits fit in 32 bits, and a query's in registers."""
    return head_dim <= LARGEST_HEAD and positions <= INPUTS


def attend(queries, scales, past, cache):
    """Attention of tokens at positions from `past` to the keys of a layer's `digits.Cache`, their own among them.

    queries: digits, int8 `[2, sequences, tokens, heads, head_dim]`; scales: c·2^e, float32 `[sequences, tokens, heads,
    1]`. Returns float32 `[sequences, tokens, heads · head_dim]`; NaN where the page says *error*.
    """
    _, sequences, tokens, heads, size = queries.shape
    queries, scales = queries.contiguous(), scales.contiguous()
    _, kv_heads, _, positions, padded = cache.keys.shape
    if not fits(size, past + tokens) or past + tokens > positions:
        raise ValueError(f"head_dim {size}, {past} + {tokens} tokens, room for {positions}: not for this kernel")
    out = torch.empty((sequences, tokens, heads * size), device=queries.device)
    width = max(32, triton.next_power_of_2(padded))
    block, keys, warps, stages = tiles(tokens, width)
    if sequences and tokens:
        _attend[(triton.cdiv(tokens, block), sequences * heads)](
            *(queries, queries.stride(0), scales, *(part.contiguous() for part in cache), out, past, tokens, positions),
            **{"HEADS": heads, "KV_HEADS": kv_heads, "SIZE": size, "PADDED": padded},
            **{"QUERIES": block, "KEYS": keys, "WIDTH": width},
            **UNFUSED, num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return out


def tiles(tokens, width):
    """(queries, keys, warps, stages) of a program, for so many tokens and numbers of a head, rounded up."""
    if tokens <= 16:
        return 16, 64, 4, 2
    return (64, 64, 8, 2) if width <= 64 else (64, 32, 8, 2) if width <= 128 else (32, 32, 8, 2)
