"""A model in exact arithmetic, and one pass of it over a whole text."""

from typing import NamedTuple

import numpy as np

from bitlaw.models.exact import decoder
from bitlaw.models.exact.description import Description, describe
from bitlaw.models.exact.weights import Weights, load_weights


class Model(NamedTuple):
    description: Description
    weights: Weights
    shape: decoder.Shape

    @property
    def vocabulary(self):
        return self.description.vocabulary

    @property
    def context(self):
        return self.description.context


def load(folder):
    description = describe(folder)
    return Model(description, load_weights(folder, description, description.context), decoder.shape_of(description))


def hidden(model, ids):
    n = len(ids)
    room = -(-n // 8) * 8
    states = np.zeros((room + 8, 2, -(-model.description.width // 2) * 2), dtype=np.int16)
    scales = np.ones(room + 8, dtype=np.float32)
    cache = decoder.new_cache(model.description, 1, n)
    ok = decoder.forward(
        model.weights,
        model.shape,
        cache,
        np.zeros(n, np.int64),
        np.arange(n),
        np.asarray(ids, np.int64),
        states,
        scales,
    )
    if not ok:
        raise FloatingPointError("overflow")
    return states, scales


def logits(model, states, first, last):
    out = np.empty((-(-(last - first) // 8) * 8, -(-model.vocabulary // 16) * 16), dtype=np.float32)
    states, scales = states
    decoder.logits(model.weights, states, scales, first, last - first, out)
    return np.ascontiguousarray(out[: last - first, : model.vocabulary])
