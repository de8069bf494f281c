"""LLM.int8() (Dettmers et al. 2022): the linear products of a GPT-NeoX model's blocks in eight bits.

Weights and inputs are quantised row by row, x ≈ s·q / 127 with s = max |x| of the row and q an int8, and the products
of the q are exact integers. At a threshold above 0, columns of the input where *any* row reaches it ("outliers") are
taken out and multiplied in the model's own dtype: a row's product then depends on the rows beside it, so on later
tokens and on other chunks of the batch (docs/int8.md). At threshold 0 a row's product depends on that row alone.
The kernels are bitsandbytes', on the CPU and on CUDA; embeddings and head stay as they are.
"""

import copy
import logging
from collections import defaultdict
from statistics import mean
from typing import NamedTuple

import torch

# its import only warns of kernels for four bits that are not installed
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
from bitsandbytes.functional import int8_vectorwise_quant  # noqa: E402

THRESHOLD = 6.0  # of the published study: the default of transformers
MATRICES = ("qkv", "out", "up", "down")


class Weight(NamedTuple):
    """A matrix: int8 `[out, in]` and the largest absolute value of each row, float32 `[out]`."""

    layer: int
    matrix: str
    values: torch.Tensor
    scales: torch.Tensor


class Products:
    """Products with `Weight`s at one threshold, in place of torch's `linear`.

    `columns` collects, for each (layer, matrix), the number of outlier columns of every call.
    """

    def __init__(self, threshold):
        self.threshold = threshold
        self.columns = defaultdict(list)

    def __call__(self, x, weight, bias):
        """x·weightᵀ + bias, `[rows, out]` in the dtype of `x` `[rows, in]`, as bitsandbytes' Linear8bitLt has it."""
        x = x.contiguous()
        values, scales, outliers = int8_vectorwise_quant(x.half(), threshold=self.threshold)
        if self.threshold == 0:
            return torch.ops.bitsandbytes.int8_scaled_mm(
                values, weight.values, scales, weight.scales, bias=bias, dtype=x.dtype
            )
        self.columns[weight.layer, weight.matrix].append(outliers.numel())
        return torch.ops.bitsandbytes.int8_mixed_scaled_mm(
            x, values, weight.values, scales, weight.scales, outliers, bias
        )[0]


def quantised(model, threshold=0.0):
    """A copy of `model` (gpt_neox.NeoX) with the matrices of its blocks in eight bits, by way of float16."""
    eight = copy.copy(model)
    eight.blocks = []
    for layer, block in enumerate(model.blocks):
        entries = dict(block)
        for matrix in MATRICES:
            weight, bias = block[matrix]
            values, scales, _ = int8_vectorwise_quant(weight.half().contiguous())
            entries[matrix] = Weight(layer, matrix, values, scales), bias
        eight.blocks.append(entries)
    return at_threshold(eight, threshold)


def at_threshold(model, threshold):
    """A copy of the quantised `model`, sharing its weights, whose products have another threshold."""
    other = copy.copy(model)
    other.product = Products(threshold)
    return other


def outlier_columns(model):
    """For each matrix, lists over layers of the mean and the largest number of outlier columns in a pass so far."""
    counts = model.product.columns
    layers = range(model.layers)
    return {
        matrix: {
            "of": model.blocks[0][matrix][0].values.shape[1],
            "mean": [round(mean(counts[layer, matrix]), 2) for layer in layers],
            "max": [max(counts[layer, matrix]) for layer in layers],
        }
        for matrix in MATRICES
    }
