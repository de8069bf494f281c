"""A checkpoint ready for exact arithmetic: load it, pass tokens through it, take its logits."""

from typing import NamedTuple

import numpy as np

from bitlaw import InputError
from bitlaw.models.exact import decoder
from bitlaw.models.exact.arithmetic import TOO_LARGE
from bitlaw.models.exact.description import LONGEST, describe
from bitlaw.models.exact.float64 import Float64
from bitlaw.models.exact.products import GROUP
from bitlaw.models.exact.weights import load_weights


class States(NamedTuple):
    """Final hidden states of rows of tokens as digits, int16 `[rows, 2, width]`, with 2^e, float32 `[rows]`.

    Both have room beyond the rows, as the compiled loops need it; q = 256 states[:, 0] + states[:, 1].
    """

    digits: np.ndarray
    scales: np.ndarray


class Model:
    """A model in exact arithmetic, on the processor. Safe to use from several threads, each with caches of its own.

    `positions`: how long a window may be; the model's context when not given. InputError for what cannot be loaded.
    """

    prefix = given_context = None  # see `checkpoint.load`

    def __init__(self, folder, positions=None):
        _check_subnormals()
        self.description = describe(folder, positions)
        longest = min(self.description.context, LONGEST)
        self.context = min(positions or longest, longest)
        self.vocabulary = self.description.vocabulary
        self.weights = load_weights(folder, self.description, self.context)
        self.shape = decoder.shape_of(self.description)

    def new_cache(self, slots, positions):
        """An empty cache for `slots` sequences of up to `positions` tokens."""
        return decoder.new_cache(self.description, slots, positions)

    def new_states(self, rows):
        """Room for the states of `rows` rows."""
        room, width = -(-rows // GROUP) * GROUP, self.description.width
        return States(np.zeros((room, 2, width + width % 2), dtype=np.int16), np.ones(room, dtype=np.float32))

    def new_logits(self, rows):
        """Room for the logits of `rows` rows: float32, with rows and columns beyond those that are meant."""
        return np.empty((-(-rows // GROUP) * GROUP, self.weights.head.scale.shape[0]), dtype=np.float32)

    def forward(self, cache, slots, positions, tokens):
        """States of rows of tokens, each of a slot of the cache at a position: see `decoder.forward`.

        slots, positions and tokens are int arrays `[rows]`. Raises InputError for a token, slot or position that does
        not exist, FloatingPointError where an activation overflows.
        """
        rows = [np.ascontiguousarray(a, dtype=np.int64) for a in (slots, positions, tokens)]
        limits = cache.keys.shape[1], min(self.context, cache.key_scales.shape[3]), self.vocabulary
        for name, values, limit in zip(("slot", "position", "token"), rows, limits, strict=True):
            if len(values) != len(rows[2]):
                raise InputError(f"{len(values)} {name}s for {len(rows[2])} tokens: expected one for each")
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                raise InputError(f"{name} {values[(values < 0) | (values >= limit)][0]}: expected 0 to {limit - 1}")
        states = self.new_states(len(rows[2]))
        if not decoder.forward(self.weights, self.shape, cache, *rows, *states):
            raise FloatingPointError(TOO_LARGE)
        return states

    def hidden(self, ids, cache=None, slot=0, past=0):
        """States of a sequence of ids at positions from `past`, which continue what `slot` of the cache holds."""
        count = len(ids)
        cache = cache or self.new_cache(1, max(count, 1))
        return self.forward(cache, np.full(count, slot), np.arange(past, past + count), ids)

    def head(self, states, first, last, out=None):
        """Logits, float32 `[last - first, vocabulary]`, of rows of states: a view of `out`, from `new_logits`."""
        rows = last - first
        out = self.new_logits(rows) if out is None else out
        if -(-rows // GROUP) * GROUP > len(out) or last > len(states.scales):
            raise InputError(f"rows {first} to {last} of {len(states.scales)}: logits have room for {len(out)}")
        if first + -(-rows // GROUP) * GROUP > len(states.scales):  # the loops read eight rows at a time
            states, first = self._moved(states, first, last), 0
        decoder.logits(self.weights, *states, first, rows, out)
        return out[:rows, : self.vocabulary]

    def _moved(self, states, first, last):
        moved = self.new_states(last - first)
        for new, old in zip(moved, states, strict=True):
            new[: last - first] = old[first:last]
        return moved

    def float64(self):
        """The engine of float64 products, with the same weights: see `float64`."""
        return Float64(self.weights, self.description)

    def digits(self, device="cpu"):
        """The engine of torch operations on a device, with weights of its own there: see `digits`."""
        from bitlaw.models.exact.digits import Digits  # imports torch, which the other engines do without

        return Digits(self.weights, self.description, self.context, device)


def _check_subnormals():
    """Raise InputError where this process flushes subnormal numbers to zero: docs/arithmetic.md, section 1."""
    if np.float32(2.0**-126) * np.float32(0.5) == 0 or np.float32(2.0**-149) * np.float32(2) == 0:
        raise InputError(
            "this process flushes subnormal numbers to zero, as some libraries built with fast-math make it do: exact "
            "arithmetic needs them; import that library later, or not at all"
        )
