"""The decoder of docs/arithmetic.md by torch operations alone, for a GPU or a processor: int8 products with int32 sums.

A third engine beside `decoder` and `float64`; the integers are the same. Every integer that enters a product is split
into signed digits to base 256 (see `arithmetic_torch`). It takes rectangles of tokens, sequences side by side. Fused
kernels take the place of its products, attention and rows of integers where `runtime.fused` says so. Where the page
says *error*, nothing waits for the device to find out: a NaN goes through to the logits of that token and of those
after it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad

from bitlaw import InputError
from bitlaw.models.exact import arithmetic_torch as exact
from bitlaw.models.exact import products
from bitlaw.models.exact.arithmetic_torch import ELEMENTS, NAN, UNIT, Matrix
from bitlaw.models.exact.families import PER_HEAD, WHOLE
from bitlaw.runtime import fused


class Cache(NamedTuple):
    """Digits of keys, int8 `[layers, slots, kv_heads, 2, positions, head_dim]`, and of values, the same with the last
    two exchanged; 2^e of each position and head, float32 `[layers, slots, kv_heads, positions]`.
    """

    keys: torch.Tensor
    key_scales: torch.Tensor
    values: torch.Tensor
    value_scales: torch.Tensor


class Digits:
    """A model in exact arithmetic on a torch device, from the Weights and the Description of a `model.Model`.

    Raises InputError where the device flushes subnormal numbers to zero.
    """

    prefix = given_context = None  # see `checkpoint.load`

    def __init__(self, weights, description, context, device="cpu"):
        self.description, self.context, self.device = description, context, torch.device(device)
        self.vocabulary = description.vocabulary
        if self._tensor(np.float32(2.0**-126)) * 0.5 == 0:
            raise InputError(
                f"device {device} flushes subnormal numbers to zero: exact arithmetic needs them; choose cpu"
            )
        self._kernels = self._attention_kernel = None
        if fused.usable(self.device):
            from bitlaw.models.exact import attention_kernel, kernels  # import Triton

            self._kernels, self._attention_kernel = kernels, attention_kernel
        self._embedding = self._matrix(weights.embedding)
        tied = weights.head.q is weights.embedding.q
        scale = self._tensor(weights.head.scale)
        self._head = self._embedding._replace(scale=scale) if tied else self._matrix(weights.head)
        names = ("gain1", "bias1", "gain2", "bias2", "query_gain", "key_gain")
        self._layers = [
            {name: self._tensor(getattr(weights, name)[i]) for name in names}
            | {name: self._matrix(getattr(weights, name), i) for name in ("qkv", "out", "up", "down")}
            | {"pairs": int(weights.pairs[i])}
            for i in range(description.layers)
        ]
        self._final = self._tensor(weights.final_gain), self._tensor(weights.final_bias)
        self._cosines, self._sines = self._tensor(weights.cosines), self._tensor(weights.sines)
        self._epsilon = self._tensor(np.float64(description.epsilon))
        self._score_scale = self._tensor(description.score_scale)

    def _tensor(self, array):
        return torch.tensor(array, device=self.device)

    def _matrix(self, given, layer=...):
        packed = given.q[layer]
        blocks, pairs = packed.shape[:2]
        q = products.unpack(packed, blocks * products.LANES, 2 * pairs, np.int16)
        digits = exact.split(pad(torch.from_numpy(q), (0, -q.shape[1] % UNIT, 0, -q.shape[0] % UNIT)), 2)
        return Matrix(digits.to(self.device), self._tensor(given.scale[layer]), self._tensor(given.bias[layer]))

    def new_cache(self, slots, positions):
        """An empty Cache for `slots` sequences of up to `positions` tokens."""
        return self._room((self.description.layers, slots), positions)

    def _room(self, first, positions):
        d = self.description
        first, positions, size = (*first, d.kv_heads), exact.up(positions), exact.up(d.head_dim)
        return Cache(
            torch.zeros((*first, 2, positions, size), dtype=torch.int8, device=self.device),
            torch.ones((*first, positions), device=self.device),
            torch.zeros((*first, 2, size, positions), dtype=torch.int8, device=self.device),
            torch.ones((*first, positions), device=self.device),
        )

    @torch.inference_mode()
    def hidden(self, ids, cache=None, past=0):
        """Final hidden states, float32 `[sequences, tokens, width]`, of ids, int64 `[sequences, tokens]`.

        The tokens are at positions from `past`; `cache`, of as many slots as there are sequences, holds those before
        and receives the new ones. From the first token on whose activations are infinite, not a number, or 2^120 and
        more, the states of a sequence are NaN. Raises InputError for tokens and positions that do not exist.
        """
        d, (sequences, count) = self.description, ids.shape
        if not ids.numel():
            return torch.empty((sequences, count, d.width), device=self.device)
        reach = self.context if cache is None else min(self.context, cache.key_scales.shape[3])
        numbers = (("position", past + count - 1, reach), *(("token", int(n), self.vocabulary) for n in ids.aminmax()))
        for name, value, limit in numbers:
            if not 0 <= value < limit:
                raise InputError(f"{name} {value}: expected 0 to {limit - 1}")
        x = self._embed(ids.reshape(-1).to(self.device))
        for i, layer in enumerate(self._layers):
            own = self._room((sequences,), count) if cache is None else Cache(*(part[i] for part in cache))
            norm1, norm2 = ((layer[f"gain{n}"], layer[f"bias{n}"]) for n in (1, 2))
            attended = self._attention(layer, x if d.post_norm else self._norm(x, *norm1), own, past)
            if d.post_norm:
                attended = self._norm(attended, *norm1)
            if not d.parallel:
                x = attended + x
            mlp = self._mlp(layer, x if d.post_norm else self._norm(x, *norm2))
            if d.post_norm:
                mlp = self._norm(mlp, *norm2)
            x = (mlp + attended) + x if d.parallel else mlp + x
        x = self._norm(x, *self._final)
        _, scale = exact.quantise(x, exact.Q15)
        return torch.where(scale.isnan(), NAN, x).view(sequences, count, -1)

    @torch.inference_mode()
    def head(self, rows, out=None):
        """Logits, float32 `[rows, vocabulary]`, of rows of `hidden`, float32 `[rows, width]`; in `out`, if given."""
        if self._kernels:
            out = torch.empty((len(rows), self.vocabulary), device=rows.device) if out is None else out[: len(rows)]
            return self._kernels.linear(rows, self._head, out)
        found = exact.linear(rows, self._head)[:, : self.vocabulary]
        return found if out is None else out[: len(rows)].copy_(found)

    def _embed(self, ids):
        high, low = (part[ids, : self.description.width].float() for part in self._embedding.digits)
        return (high * 256 + low) * self._embedding.scale[ids, None]

    def _norm(self, x, gain, bias=None):
        return exact.norm(x, gain, bias if self.description.layer_norm else None, self._epsilon)

    def _linear(self, x, matrix):
        return (self._kernels or exact).linear(x, matrix)

    def _digits(self, rows):
        return (self._kernels or exact).digits_of_rows(rows)

    def _mlp(self, layer, x):
        d, up = self.description, self._linear(x, layer["up"])
        hidden = exact.activate(up[:, : d.mlp], d.activation)
        if d.gated:
            hidden = hidden * up[:, d.mlp : 2 * d.mlp]
        return self._linear(hidden, layer["down"])[:, : d.width]

    def _attention(self, layer, x, cache, past):
        """Attention with its output projection of rows `[sequences · tokens, width]`; fills the Cache of one layer."""
        d, sequences, size = self.description, len(cache.keys), self.description.head_dim
        sizes = [heads * size for heads in (d.heads, d.kv_heads, d.kv_heads)]
        qkv = self._linear(x, layer["qkv"])[:, : sum(sizes)].unflatten(0, (sequences, -1))
        queries, keys, values = qkv.split(sizes, -1)
        count, end = qkv.shape[1], past + qkv.shape[1]
        # digits are [2, sequences, tokens, heads, size], scales [sequences, tokens, heads, 1]
        digits, scales = self._digits(self._turn(queries, layer["query_gain"], layer["pairs"], past))
        key_digits, key_scales = self._digits(self._turn(keys, layer["key_gain"], layer["pairs"], past))
        value_digits, value_scales = self._digits(values.unflatten(2, (d.kv_heads, size)))
        key_scales = torch.where(value_scales.isnan(), NAN, key_scales)  # an error goes on through the scores
        cache.keys[:, :, :, past:end, :size] = key_digits.permute(1, 3, 0, 2, 4)
        cache.values[:, :, :, :size, past:end] = value_digits.permute(1, 3, 0, 4, 2)
        cache.key_scales[:, :, past:end] = key_scales[..., 0].transpose(1, 2)
        cache.value_scales[:, :, past:end] = value_scales[..., 0].transpose(1, 2)
        if self._attention_kernel and self._attention_kernel.fits(size, end):
            attended = self._attention_kernel.attend(digits, self._score_scale * scales, past, cache)
            return self._linear(attended.view(sequences * count, -1), layer["out"])[:, : d.width]
        digits = pad(digits, (0, -size % UNIT)).unflatten(3, (d.kv_heads, -1)).permute(1, 3, 0, 4, 2, 5)
        scales = (self._score_scale * scales).unflatten(2, (d.kv_heads, -1)).permute(0, 2, 3, 1, 4)
        rows = max(1, ELEMENTS // (sequences * d.heads * exact.up(end)))
        parts = zip(digits.split(rows, 4), scales.split(rows, 3), range(past, end, rows), strict=True)
        attended = torch.cat([self._attend(*part, cache) for part in parts], 3)
        return self._linear(attended.permute(0, 3, 1, 2, 4).reshape(sequences * count, -1), layer["out"])[:, : d.width]

    def _turn(self, part, gain, pairs, past):
        """q/k norm, if any, and turning of `pairs` pairs of numbers of each head.

        part: queries or keys `[sequences, tokens, heads · size]`; comes back by heads.
        """
        d, last = self.description, past + part.shape[1]
        if d.qk_norm == WHOLE:
            part = self._norm(part, gain)
        part = part.unflatten(2, (-1, d.head_dim))
        if d.qk_norm == PER_HEAD:
            part = self._norm(part, gain)
        cosines, sines = (table[past:last, None, :pairs] for table in (self._cosines, self._sines))
        left, right, rest = part.split([pairs, pairs, d.head_dim - 2 * pairs], -1)
        return torch.cat((left * cosines - right * sines, right * cosines + left * sines, rest), -1)

    def _attend(self, queries, scales, first, cache):
        """Attention of queries at positions from `first`: digits int8 `[sequences, kv_heads, 2, group, tokens, size]`,
        c·2^e float32 `[sequences, kv_heads, group, tokens, 1]`; returns float32 `[the same, head_dim]`."""
        shape, end = scales.shape[:-1], first + scales.shape[3]
        reach = exact.up(end)

        def rows(digits):  # of one key/value head of one sequence together, as `exact.products` has them
            return digits.flatten(-3, -2).flatten(0, 1)

        position = torch.arange(reach, device=self.device)
        visible = position <= position[first:end, None]
        sums = exact.products(rows(queries), cache.keys[..., :reach, :].flatten(0, 1))
        scores = sums.float().reshape(*shape, reach) * scales * cache.key_scales[:, :, None, None, :reach]
        scores = torch.where(visible, scores, -math.inf)
        top = scores.amax(-1, keepdim=True)
        p, k = exact.exponential(scores - top)
        u = p * exact.power_of_two(k + 22)
        total = u.round().sum(-1, keepdim=True, dtype=torch.float64)  # exact; nothing of what is not visible
        value_scales = cache.value_scales[:, :, :reach]
        largest = value_scales.cummax(-1).values[:, :, None, first:end, None]  # among the keys that a query sees
        u = u * (value_scales[:, :, None, None] * largest.reciprocal())
        weights = exact.split(torch.where(visible, u.round(), 0).to(torch.int32), 3).movedim(0, 2)
        sums = exact.products(rows(weights), cache.values[..., :reach].flatten(0, 1))
        factor = torch.where(top.isfinite(), total.reciprocal().float(), NAN) * largest
        return sums.float().reshape(*shape, -1)[..., : self.description.head_dim] * factor
