"""The decoder of docs/arithmetic.md as compiled loops over int16 matrices: blocks of tokens and single steps alike.

`forward` takes rows of tokens, each with a sequence (a slot of the cache) and a position: a step of one sequence or of
many, a block that continues one, or a whole text. Whatever the rows, the integers are the same. `forward` and `logits`
may be called from other compiled functions, so that the decoding of a whole chunk is one call.
"""

from typing import NamedTuple

import numpy as np

from bitlaw.models.exact import arithmetic
from bitlaw.models.exact.arithmetic import (
    ABSOLUTE,
    INFINITE,
    exponential,
    float_bits,
    power_of_two,
    to_integer,
)
from bitlaw.models.exact.families import PER_HEAD, WHOLE
from bitlaw.models.exact.products import GROUP, LANES, linear, score, weigh_values
from bitlaw.runtime.compiling import compiled, not_inlined

TILE = 64  # rows that pass through a layer together: their numbers stay in cache
EIGHT = np.int32(8)


class Shape(NamedTuple):
    """What the loops need of a Description."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    epsilon: float
    layer_norm: bool
    post_norm: bool
    parallel: bool
    activation: int
    gated: bool
    qk_norm: int
    score_scale: np.float32


class Cache(NamedTuple):
    """Keys and values of `slots` sequences as integers, with 2^e (float32) of each position and head.

    keys int16 `[layers, slots, kv_heads, position blocks, pairs of numbers, 16 positions, 2]`,
    values int16 `[layers, slots, kv_heads, blocks of numbers, pairs of positions, 16 numbers, 2]`,
    scales float32 `[layers, slots, kv_heads, positions]`.
    """

    keys: np.ndarray
    key_scales: np.ndarray
    values: np.ndarray
    value_scales: np.ndarray


def shape_of(description):
    d = description
    return Shape(
        *(d.layers, d.width, d.heads, d.kv_heads, d.head_dim, d.mlp, d.vocabulary, d.epsilon),
        *(d.layer_norm, d.post_norm, d.parallel, d.activation, d.gated, d.qk_norm),
        d.score_scale,
    )


@compiled
def _up(count, unit):
    """`count` rounded up to a multiple of `unit`."""
    return (count + unit - 1) // unit * unit


def new_cache(description, slots, positions):
    """A Cache of zeros for `slots` sequences of up to `positions` tokens."""
    d = description
    blocks = -(-positions // LANES)
    first = d.layers, slots, d.kv_heads
    return Cache(
        np.zeros((*first, blocks, -(-d.head_dim // 2), LANES, 2), dtype=np.int16),
        np.ones((*first, blocks * LANES), dtype=np.float32),
        np.zeros((*first, -(-d.head_dim // LANES), blocks * LANES // 2, LANES, 2), dtype=np.int16),
        np.ones((*first, blocks * LANES), dtype=np.float32),
    )


# --- attention ------------------------------------------------------------------------------------------------------


@compiled
def largest_bits(row):
    """Bits of the largest of a float32 row without NaN; compared as integers, which vectorises."""
    found = np.int32(-(2**31))
    for i in range(np.uint64(len(row))):
        b = float_bits(row[i])
        key = np.int32(b ^ np.int32((b >> np.int32(31)) & ABSOLUTE))
        found = key if key > found else found
    return np.int32(found ^ np.int32((found >> np.int32(31)) & ABSOLUTE))


@compiled
def _attention_weights(scores, value_scales, high, middle, low):
    """Weights of the values of one query, as digits, from its scores, float32 `[keys]`.

    Returns (factor of the sums over values, whether a score is infinite).
    """
    not_inlined()
    bits = largest_bits(scores)
    top = arithmetic.bits_float(bits)
    largest = arithmetic.bits_float(largest_bits(value_scales))
    back = np.float32(1) / largest  # a power of two, exactly
    total, n = np.int64(0), len(scores)
    for first in range(0, n, 256):  # so many weights of up to 2^22 that their sum fits in 32 bits
        part = np.int32(0)
        for i in range(np.uint64(first), np.uint64(first + 256 if first + 256 < n else n)):
            p, k = exponential(scores[i] - top)
            u = p * power_of_two(np.int32(k + np.int32(22)))
            part = np.int32(part + to_integer(u))
            w = to_integer(u * (value_scales[i] * back))
            upper = np.int32((w + np.int32(128)) >> EIGHT)
            uppermost = np.int32((upper + np.int32(128)) >> EIGHT)
            high[i] = np.int16(uppermost)
            middle[i] = np.int16(upper - np.int32(uppermost << EIGHT))
            low[i] = np.int16(w - np.int32(upper << EIGHT))
        total += part
    return np.float32(1.0 / np.float64(total)) * largest, np.int32(bits & ABSOLUTE) >= INFINITE


@compiled
def _attend(keys, key_scales, values, value_scales, queries, query_scales, first, visible, out, scratch):
    """Attention of up to GROUP queries from `first` of one key/value head, of one sequence.

    queries int16 `[n, 2, head_dim]` and query_scales as in products; visible: how many keys each sees, ascending; out
    float32 `[GROUP, head_dim]`; scratch: scores float32 `[GROUP, keys]`, digits int16 `[GROUP, 3, keys]`, factors
    float32 `[GROUP]`. Returns whether a score is infinite.
    """
    not_inlined()
    scores, digits, factors = scratch
    count, longest, bad = len(visible), visible[-1], False
    blocks, pairs = (longest + LANES - 1) // LANES, (longest + 1) // 2
    moved, moved_scales = queries[first:], query_scales[first:]
    score(keys, blocks, keys.shape[1], moved, 0, count, moved_scales, key_scales, key_scales, scores)
    for r in range(count):
        n = visible[r]
        factors[r], infinite = _attention_weights(
            scores[r, :n], value_scales[:n], digits[r, 0], digits[r, 1], digits[r, 2]
        )
        bad |= infinite
        digits[r, :, n : 2 * pairs] = 0
    weigh_values(values, values.shape[0], pairs, digits, 0, count, factors, factors, factors, out)
    return bad


@compiled
def turn_heads(row, heads, kv_heads, size, qk_norm, query_gain, key_gain, epsilon, cosines, sines):
    """q/k norm, if any, and rotary turning of a token's queries and keys, in place; `row` ends with its values.

    Returns whether some head is too large for its norm.
    """
    not_inlined()
    bad, end, key_end = False, heads * size, (heads + kv_heads) * size
    if qk_norm == WHOLE:
        bad |= arithmetic.norm(row[:end], query_gain, query_gain, epsilon, False, row[:end])
        bad |= arithmetic.norm(row[end:key_end], key_gain, key_gain, epsilon, False, row[end:key_end])
    for h in range(heads + kv_heads):
        head = row[h * size : (h + 1) * size]
        if qk_norm == PER_HEAD:
            gain = query_gain if h < heads else key_gain
            bad |= arithmetic.norm(head, gain, gain, epsilon, False, head)
        arithmetic.turn(head, cosines, sines)
    return bad


@compiled
def _take_queries(row, size, scale, queries, query_scales, at):
    """Digits of a token's turned queries into `queries`, int16 `[kv_heads, n, 2, size]`, from `at` of each kv head."""
    bad, group = False, len(row) // size // len(queries)
    for h in range(len(row) // size):
        g, m = h // group, at + h % group
        own, large = arithmetic.quantise_digits(
            row[h * size : (h + 1) * size], queries[g, m, 0, :size], queries[g, m, 1, :size]
        )
        query_scales[g, m] = scale * own
        bad |= large
    return bad


@compiled
def _store(row, size, keys, key_scales, values, value_scales, position, integers):
    """A token's turned keys, then its values, to the cache of one layer and slot; integers is scratch `[size]`."""
    bad, kv_heads = False, len(keys)
    for g in range(kv_heads):
        key_scales[g, position], large = arithmetic.quantise(row[g * size : (g + 1) * size], integers)
        bad |= large
        for i in range(size):
            keys[g, position // LANES, i // 2, position % LANES, i % 2] = integers[i]
        at = (kv_heads + g) * size
        value_scales[g, position], large = arithmetic.quantise(row[at : at + size], integers)
        bad |= large
        for i in range(size):
            values[g, i // LANES, position // 2, i % LANES, position % 2] = integers[i]
    return bad


# --- the decoder ----------------------------------------------------------------------------------------------------


@compiled
def _multiply(matrices, layer, x, scales, rows, out):
    """The linear layer of `layer` of the first `rows` rows of digits `x` into `out`, float32."""
    q = matrices.q[layer]
    linear(q, len(q), q.shape[1], x, 0, rows, scales, matrices.scale[layer], matrices.bias[layer], out)


@compiled
def _norm_digits(row, gain, bias, epsilon, layer, buffer, x, r):
    """Norm of a row, then its digits into x[r]; returns (2^e, whether it is too large)."""
    bad = arithmetic.norm(row, gain, bias, epsilon, layer, buffer)
    scale, large = arithmetic.quantise_digits(buffer, x[r, 0, : len(row)], x[r, 1, : len(row)])
    return scale, bad | large


@compiled
def forward(weights, shape, cache, slots, positions, tokens, states, state_scales):
    """Pass rows of tokens through all layers and the final norm; their keys and values go to the cache.

    slots, positions and tokens are int64 `[rows]`; rows of one sequence are in the order of their positions, which
    continue what its slot holds. Fills states int16 `[>= rows rounded up to 8, 2, width rounded up to even]`, zeros
    beyond the width, and state_scales float32 `[the same rows]`, for `logits`. Returns whether all went well: false if
    an activation or a score was infinite, not a number or 2^120 and more; the rows then mean nothing.
    """
    not_inlined()
    rows, width, size, mlp = len(tokens), shape.width, shape.head_dim, shape.mlp
    group = shape.heads // shape.kv_heads
    tile, inner = max(GROUP, min(TILE, _up(rows, GROUP))), shape.heads * size
    x = np.empty((rows, width), dtype=np.float32)
    # of a tile of rows: digits that enter products and what comes out of them; zeros where widths are rounded up
    entering = np.zeros((tile, 2, _up(width, 2)), dtype=np.int16)
    attended = np.zeros((tile, 2, _up(inner, 2)), dtype=np.int16)
    active = np.zeros((tile, 2, _up(mlp, 2)), dtype=np.int16)
    scales = np.ones(tile, dtype=np.float32)
    qkv = np.empty((tile, weights.qkv.scale.shape[1]), dtype=np.float32)
    after_attention = np.empty((tile, weights.out.scale.shape[1]), dtype=np.float32)
    up = np.empty((tile, weights.up.scale.shape[1]), dtype=np.float32)
    after_mlp = np.empty((tile, weights.down.scale.shape[1]), dtype=np.float32)
    queries = np.zeros((shape.kv_heads, tile * group + GROUP, 2, _up(size, 2)), dtype=np.int16)
    query_scales = np.ones((shape.kv_heads, tile * group + GROUP), dtype=np.float32)
    heads = np.empty((tile, inner), dtype=np.float32)
    buffer, hidden = np.empty(width, dtype=np.float32), np.empty(mlp, dtype=np.float32)
    integers = np.empty(size, dtype=np.int16)
    reach = cache.key_scales.shape[3]
    scores, digits = np.empty((GROUP, reach), dtype=np.float32), np.zeros((GROUP, 3, reach), dtype=np.int16)
    attention, factors = np.empty((GROUP, _up(size, LANES)), dtype=np.float32), np.ones(GROUP, dtype=np.float32)
    scratch = scores, digits, factors
    visible = np.empty(tile * group, dtype=np.int64)
    kind = shape.epsilon, shape.layer_norm
    sizes = shape.heads, shape.kv_heads, size, shape.qk_norm
    bad = False

    table = weights.embedding
    for r in range(rows):
        block, lane = tokens[r] // LANES, tokens[r] % LANES
        for i in range(width):
            x[r, i] = np.float32(table.q[block, i // 2, lane, i % 2]) * table.scale[tokens[r]]

    for layer in range(shape.layers):
        gain1, bias1 = weights.gain1[layer], weights.bias1[layer]
        gain2, bias2 = weights.gain2[layer], weights.bias2[layer]
        gains, pairs = (weights.query_gain[layer], weights.key_gain[layer]), weights.pairs[layer]
        for start in range(0, rows, tile):
            count = min(tile, rows - start)
            for r in range(count):
                if shape.post_norm:
                    scales[r], large = arithmetic.quantise_digits(
                        x[start + r], entering[r, 0, :width], entering[r, 1, :width]
                    )
                else:
                    scales[r], large = _norm_digits(x[start + r], gain1, bias1, *kind, buffer, entering, r)
                bad |= large
            _multiply(weights.qkv, layer, entering, scales, count, qkv)
            for r in range(count):
                p, slot = positions[start + r], slots[start + r]
                turns = weights.cosines[p, :pairs], weights.sines[p, :pairs]
                bad |= turn_heads(qkv[r], *sizes, *gains, shape.epsilon, *turns)
                bad |= _take_queries(qkv[r, :inner], size, shape.score_scale, queries, query_scales, r * group)
                bad |= _store(
                    qkv[r, inner:],
                    size,
                    cache.keys[layer, slot],
                    cache.key_scales[layer, slot],
                    cache.values[layer, slot],
                    cache.value_scales[layer, slot],
                    p,
                    integers,
                )
                visible[r * group : (r + 1) * group] = p + 1
            first = 0
            while first < count:
                # rows of one sequence attend together
                slot, last = slots[start + first], first + 1
                while last < count and slots[start + last] == slot:
                    last += 1
                for g in range(shape.kv_heads):
                    for m in range(first * group, last * group, GROUP):
                        end = min(m + GROUP, last * group)
                        bad |= _attend(
                            *(cache.keys[layer, slot, g], cache.key_scales[layer, slot, g]),
                            *(cache.values[layer, slot, g], cache.value_scales[layer, slot, g]),
                            *(queries[g], query_scales[g], m, visible[m:end], attention, scratch),
                        )
                        for i in range(m, end):
                            h = g * group + i % group
                            heads[i // group, h * size : (h + 1) * size] = attention[i - m, :size]
                first = last
            for r in range(count):
                scales[r], large = arithmetic.quantise_digits(heads[r], attended[r, 0, :inner], attended[r, 1, :inner])
                bad |= large
            _multiply(weights.out, layer, attended, scales, count, after_attention)
            for r in range(count):
                row, more = x[start + r], after_attention[r, :width]
                if shape.post_norm:
                    bad |= arithmetic.norm(more, gain1, bias1, *kind, more)
                if not shape.parallel:
                    for i in range(np.uint64(width)):
                        row[i] = more[i] + row[i]
                if shape.post_norm:
                    scales[r], large = arithmetic.quantise_digits(row, entering[r, 0, :width], entering[r, 1, :width])
                else:
                    scales[r], large = _norm_digits(row, gain2, bias2, *kind, buffer, entering, r)
                bad |= large
            _multiply(weights.up, layer, entering, scales, count, up)
            for r in range(count):
                arithmetic.activate(up[r, : mlp * 2 if shape.gated else mlp], shape.activation, shape.gated, hidden)
                scales[r], large = arithmetic.quantise_digits(hidden, active[r, 0, :mlp], active[r, 1, :mlp])
                bad |= large
            _multiply(weights.down, layer, active, scales, count, after_mlp)
            for r in range(count):
                row, more, other = x[start + r], after_mlp[r, :width], after_attention[r]
                if shape.post_norm:
                    bad |= arithmetic.norm(more, gain2, bias2, *kind, more)
                if shape.parallel:
                    for i in range(np.uint64(width)):
                        row[i] = (more[i] + other[i]) + row[i]
                else:
                    for i in range(np.uint64(width)):
                        row[i] = more[i] + row[i]
    for r in range(rows):
        state_scales[r], large = _norm_digits(x[r], weights.final_gain, weights.final_bias, *kind, buffer, states, r)
        bad |= large
    return not bad


@compiled
def logits(weights, states, state_scales, first, rows, out):
    """Logits of the rows first … first + rows - 1 of what `forward` filled, into out.

    out is float32 `[>= rows rounded up to 8, vocabulary rounded up to 16]`, C-contiguous; what is rounded up is not
    meant to be read. states must have room for rows rounded up to 8 from `first` on.
    """
    head = weights.head
    x, scales = states[first:], state_scales[first:]
    linear(head.q, len(head.q), head.q.shape[1], x, 0, rows, scales, head.scale, head.bias, out)


@compiled
def step(weights, shape, cache, slots, positions, tokens, states, state_scales, out):
    """`forward`, then the `logits` of all rows into out; returns what `forward` does."""
    ok = forward(weights, shape, cache, slots, positions, tokens, states, state_scales)
    logits(weights, states, state_scales, 0, len(tokens), out)
    return ok
