"""LLM.int8() (Dettmers et al. 2022): the linear products of a GPT-NeoX model's blocks in eight bits.

Weights and inputs are quantised row by row, x ≈ s·q / 127 with s = max |x| of the row and q an int8, and the products
of the q are exact integers. At a threshold above 0, columns of the input where *any* token of a chunk reaches it
("outliers") are taken out and multiplied in the model's own dtype: a token's product then depends on later tokens
(docs/int8.md). At threshold 0 it depends on that token alone. The kernels are bitsandbytes', on the CPU and on CUDA;
embeddings and head stay as they are.

bitsandbytes asks the device at every product which columns are outliers, and takes them from all rows that pass
together. Here each sequence of a batch has its own, as if it passed alone, and the products make room for a number of
columns that is checked once a pass: nothing waits for the device in between.
"""

import logging
from collections import defaultdict
from threading import local
from typing import NamedTuple

import torch

from bitlaw.models.gpt_neox import NeoX

# its import only warns of kernels for four bits that are not installed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
from bitsandbytes.functional import int8_vectorwise_quant  # noqa: E402

THRESHOLD = 6.0  # of the published study: the default of transformers
MATRICES = ("qkv", "out", "up", "down")
ROOM = 64  # columns of outliers that a product has room for, until more are met


class Weight(NamedTuple):
    """A matrix: int8 `[out, in]` and the largest absolute value of each row, float32 `[out]`."""

    layer: int
    matrix: str
    values: torch.Tensor
    scales: torch.Tensor


def quantise(layer, matrix, weight):
    """The Weight of a matrix `[out, in]` of a block, by way of float16."""
    values, scales, _ = int8_vectorwise_quant(weight.half().contiguous())
    return Weight(layer, matrix, values, scales)


def by_rows(x, weight, bias):
    """As Linear8bitLt: x·weightᵀ + bias, `[batch, length, out]` in the dtype of `x` `[batch, length, in]`."""
    rows = x.reshape(-1, x.shape[-1])
    values, scales, _ = int8_vectorwise_quant(rows.half())
    return _scaled(values, scales, weight, bias, x)


def _scaled(values, scales, weight, bias, x):
    found = torch.ops.bitsandbytes.int8_scaled_mm(
        values, weight.values, scales, weight.scales, bias=bias, dtype=x.dtype
    )
    return found.view(*x.shape[:-1], -1)


class Products:
    """Products with `Weight`s at a threshold above 0, in place of torch's `linear`: Linear8bitLt's of each sequence.

    `columns` collects, for each (layer, matrix), the number of outlier columns of the sequences of every pass, int64
    `[batch]` each. A pass counts only if `lacks_room` says so.
    """

    def __init__(self, threshold):
        self.threshold = threshold
        self.room = dict.fromkeys(MATRICES, ROOM)
        self.columns = defaultdict(list)
        self._running = local()  # of each thread, the products of its pass so far

    def __call__(self, x, weight, bias):
        """x·weightᵀ + bias, `[batch, length, out]` in the dtype of `x` `[batch, length, in]`."""
        half = x.half()
        large = half.abs() >= self.threshold
        taken = large.any(1)  # [batch, in]
        values, scales, _ = int8_vectorwise_quant(half.masked_fill(large, 0).flatten(0, 1))
        values.view(x.shape).masked_fill_(taken[:, None], 0)
        found = _scaled(values, scales, weight, bias, x)
        some = taken.any(0)
        count = some.sum()
        room = min(self.room[weight.matrix], x.shape[2])
        columns = torch.nonzero_static(some, size=room, fill_value=0)[:, 0]
        own = taken.index_select(1, columns) & (torch.arange(room, device=x.device) < count)
        outliers = torch.where(own[:, None], x.index_select(2, columns), 0)
        matrix = torch.ops.bitsandbytes.int8_vectorwise_dequant(weight.values.index_select(1, columns), weight.scales)
        found.view(-1, found.shape[-1]).addmm_(outliers.flatten(0, 1), matrix.to(x.dtype).t())
        met = self._running.__dict__.setdefault("met", [])
        met.append((weight.layer, weight.matrix, taken.sum(1), count))
        return found

    def lacks_room(self):
        """Whether a product of the pass that has ended left outliers out, so that it must be made again, with the room
        that there is now. Waits for the device, once for the whole pass."""
        met = self._running.__dict__.pop("met")  # (layer, matrix, columns of each sequence, columns of any)
        counts = torch.stack([count for *_, count in met]).tolist()
        needed = defaultdict(int)
        for (_, matrix, *_), count in zip(met, counts, strict=True):
            needed[matrix] = max(needed[matrix], count)
        lacking = {matrix: count for matrix, count in needed.items() if count > self.room[matrix]}
        for matrix, count in lacking.items():
            self.room[matrix] = 1 << (count - 1).bit_length()
        if not lacking:
            for layer, matrix, of_each, _ in met:
                self.columns[layer, matrix].append(of_each)
        return bool(lacking)


class WithOutliers(NeoX):
    """A quantised model whose products take outliers out.

    Sequences of a batch must be equally long: tokens that only fill up would count, too.
    """

    equally_long = True

    def __init__(self, model, threshold):
        """A copy of the quantised `model`, sharing its weights; `threshold` is above 0."""
        self.__dict__.update(model.__dict__)
        self.product = Products(threshold)

    def hidden(self, ids, cache=None, past=0):
        states = super().hidden(ids, cache, past)
        while self.product.lacks_room():
            states = super().hidden(ids, cache, past)
        return states


def outlier_columns(model):
    """For each matrix, lists over layers of the mean and the largest number of outlier columns of a sequence so far."""
    layers = range(model.layers)
    counts = {key: torch.cat(found).double() for key, found in model.product.columns.items()}
    return {
        matrix: {
            "of": model.blocks[0][matrix][0].values.shape[1],
            "mean": [round(counts[layer, matrix].mean().item(), 2) for layer in layers],
            "max": [int(counts[layer, matrix].max()) for layer in layers],
        }
        for matrix in MATRICES
    }
