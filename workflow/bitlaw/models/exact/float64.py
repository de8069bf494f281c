"""The decoder of docs/arithmetic.md by float64 matrix products: one pass over a whole text, in numpy.

A second engine beside `decoder`, with other sums in another order by another library; the integers are the same. Its
matrices take four times the memory: beyond `budget` bytes they are converted anew for each layer of each pass.
"""

import numpy as np

from bitlaw.models.exact import arithmetic
from bitlaw.models.exact.arithmetic import ABSOLUTE, INFINITE, TOO_LARGE, bits_float, exponential, power_of_two
from bitlaw.models.exact.decoder import largest_bits, turn_heads
from bitlaw.models.exact.products import unpack
from bitlaw.runtime.compiling import compiled

ROWS = 256  # that pass through the head or attention together
BUDGET = 1 << 29  # bytes of converted layers to keep


class Float64:
    """One-shot passes with the Weights and the Description of a model."""

    def __init__(self, weights, description, budget=BUDGET):
        d = self.description = description
        self.weights = weights
        queries, keys = d.heads * d.head_dim, d.kv_heads * d.head_dim
        self._sizes = {
            "qkv": (queries + 2 * keys, d.width),
            "out": (d.width, queries),
            "up": (d.mlp * (1 + d.gated), d.width),
            "down": (d.width, d.mlp),
        }
        total = 8 * d.layers * sum(outputs * inputs for outputs, inputs in self._sizes.values())
        self._kept = {} if total <= budget else None
        self._head = None

    def hidden(self, ids):
        """(states int16 `[tokens, 2, width]`, scales float32 `[tokens]`) of one sequence of ids, as `decoder.forward`.

        Raises FloatingPointError where an activation overflows.
        """
        d, w = self.description, self.weights
        x = self._embed(np.asarray(ids, dtype=np.int64))
        bad = False
        for i in range(d.layers):
            norm1, norm2 = (w.gain1[i], w.bias1[i]), (w.gain2[i], w.bias2[i])
            attended, failed = self._attention(i, self._linear(i, "qkv", x, None if d.post_norm else norm1))
            bad |= failed
            if d.post_norm:
                bad |= _norms(attended, *norm1, d.epsilon, d.layer_norm, attended)
            if not d.parallel:
                x = attended + x
            up = self._linear(i, "up", x, None if d.post_norm else norm2)
            hidden = np.empty((len(x), d.mlp), dtype=np.float32)
            _activations(up, d.activation, d.gated, hidden)
            mlp = self._linear(i, "down", hidden)
            if d.post_norm:
                bad |= _norms(mlp, *norm2, d.epsilon, d.layer_norm, mlp)
            x = (mlp + attended) + x if d.parallel else mlp + x
        final = np.empty_like(x)
        bad |= _norms(x, w.final_gain, w.final_bias, d.epsilon, d.layer_norm, final)
        states, scales = (
            np.zeros((len(x), 2, x.shape[1] + x.shape[1] % 2), dtype=np.int16),
            np.empty(len(x), np.float32),
        )
        bad |= _digits(final, states, scales)
        self._check(bad)
        return states, scales

    def head(self, states, scales):
        """Logits, float32 `[rows, vocabulary]`, of rows of `hidden`; meant for a few hundred rows at a time."""
        d, head = self.description, self.weights.head
        if self._head is None:
            self._head = unpack(head.q, d.vocabulary, d.width)
        x = states[:, 0, : d.width] * 256.0 + states[:, 1, : d.width]
        out = np.empty((len(x), d.vocabulary), dtype=np.float32)
        _scaled(x @ self._head.T, np.ascontiguousarray(scales), head.scale, head.bias, out)
        return out

    def _check(self, bad):
        if bad:
            raise FloatingPointError(TOO_LARGE)

    def _embed(self, ids):
        table = self.weights.embedding
        q = table.q[ids // 16, :, ids % 16].reshape(len(ids), -1)[:, : self.description.width]
        return q.astype(np.float32) * table.scale[ids, None]

    def _matrix(self, layer, name):
        if self._kept is None:
            return unpack(getattr(self.weights, name).q[layer], *self._sizes[name])
        if (layer, name) not in self._kept:
            self._kept[layer, name] = unpack(getattr(self.weights, name).q[layer], *self._sizes[name])
        return self._kept[layer, name]

    def _linear(self, layer, name, x, norm=None):
        """The linear layer `name` of the rows of x, after a norm (gain, bias), if any; float32."""
        d, matrices = self.description, getattr(self.weights, name)
        q, scales = np.empty(x.shape), np.empty(len(x), dtype=np.float32)
        bad = False
        if norm:
            normed = np.empty_like(x)
            bad |= _norms(x, *norm, d.epsilon, d.layer_norm, normed)
            x = normed
        self._check(bad | _rows(x, q, scales))
        out = np.empty((len(x), self._sizes[name][0]), dtype=np.float32)
        _scaled(q @ self._matrix(layer, name).T, scales, matrices.scale[layer], matrices.bias[layer], out)
        return out

    def _attention(self, layer, qkv):
        d, w, n = self.description, self.weights, len(qkv)
        parts = np.empty((d.heads + 2 * d.kv_heads, n, d.head_dim))
        scales = np.empty(parts.shape[:2], dtype=np.float32)
        gains = w.query_gain[layer], w.key_gain[layer]
        turns = w.cosines[:, : w.pairs[layer]], w.sines[:, : w.pairs[layer]]
        bad = _split(qkv, d.heads, d.kv_heads, d.qk_norm, *gains, d.epsilon, *turns, parts, scales)
        heads = np.empty((n, d.heads, d.head_dim), dtype=np.float32)
        for h in range(d.heads):
            g = d.heads + h * d.kv_heads // d.heads
            keys, values, value_scales = parts[g], parts[g + d.kv_heads], scales[g + d.kv_heads]
            for first in range(0, n, ROWS):
                last = min(first + ROWS, n)
                scores = parts[h, first:last] @ keys[:last].T
                query_scales, factors = d.score_scale * scales[h, first:last], np.empty(last - first, dtype=np.float32)
                bad |= _attention_weights(scores, first, query_scales, scales[g], value_scales, factors)
                heads[first:last, h] = (scores @ values[:last]).astype(np.float32) * factors[:, None]
        return self._linear(layer, "out", heads.reshape(n, -1)), bad


@compiled
def _norms(x, gain, bias, epsilon, layer_norm, out):
    bad = False
    for r in range(len(x)):
        bad |= arithmetic.norm(x[r], gain, bias, epsilon, layer_norm, out[r])
    return bad


@compiled
def _rows(x, q, scales):
    bad = False
    for r in range(len(x)):
        scales[r], large = arithmetic.quantise(x[r], q[r])
        bad |= large
    return bad


@compiled
def _digits(x, digits, scales):
    bad, n = False, x.shape[1]
    for r in range(len(x)):
        scales[r], large = arithmetic.quantise_digits(x[r], digits[r, 0, :n], digits[r, 1, :n])
        bad |= large
    return bad


@compiled
def _activations(x, activation, gated, out):
    for r in range(len(x)):
        arithmetic.activate(x[r], activation, gated, out[r])


@compiled
def _scaled(sums, row_scales, column_scales, biases, out):
    """Exact sums, float64 `[rows, outputs]`, to float32."""
    for r in range(len(sums)):
        row, scale, target = sums[r], row_scales[r], out[r]
        for i in range(np.uint64(len(row))):
            target[i] = np.float32(row[i]) * scale * column_scales[i] + biases[i]


@compiled
def _split(qkv, heads, kv_heads, qk_norm, query_gain, key_gain, epsilon, cosines, sines, parts, scales):
    """Queries, keys and values of each head as integers: parts float64 `[heads + 2 kv_heads, tokens, head_dim]`."""
    bad, size = False, parts.shape[2]
    for t in range(len(qkv)):
        row, tables = qkv[t], (cosines[t], sines[t])
        bad |= turn_heads(row, heads, kv_heads, size, qk_norm, query_gain, key_gain, epsilon, *tables)
        for h in range(heads + 2 * kv_heads):
            scales[h, t], large = arithmetic.quantise(row[h * size : (h + 1) * size], parts[h, t])
            bad |= large
    return bad


@compiled
def _attention_weights(sums, first, query_scales, key_scales, value_scales, factors):
    """Exact scores of queries from `first`, float64 `[queries, keys]`, to integer weights of the values, in place."""
    bad, row = False, np.empty(sums.shape[1], dtype=np.float32)
    for r in range(len(sums)):
        n = np.uint64(first + r + 1)
        exact, scale = sums[r], query_scales[r]
        for i in range(n):
            row[i] = np.float32(exact[i]) * scale * key_scales[i]
        bits = largest_bits(row[:n])
        bad |= np.int32(bits & ABSOLUTE) >= INFINITE
        top, largest = bits_float(bits), bits_float(largest_bits(value_scales[:n]))
        total = np.int64(0)
        for i in range(n):
            p, k = exponential(row[i] - top)
            u = p * power_of_two(np.int32(k + np.int32(22)))
            total += np.int64(np.rint(u))
            exact[i] = np.rint(u * (value_scales[i] * (np.float32(1) / largest)))
        exact[n:] = 0.0
        factors[r] = np.float32(1.0 / np.float64(total)) * largest
    return bad
