"""Models in the shapes of Pythia on torch's meta device: what the library computes with, without its numbers.

And stand-ins for fused kernels, which the meta device cannot run, by what they are specified to read and write.
"""

import json
import tempfile
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import counting
import numpy as np
import torch

from bitlaw.compression import torch_scoring
from bitlaw.models import gpt_neox, llm_int8
from bitlaw.models.exact import arithmetic_torch, digits
from bitlaw.models.exact.description import describe


class Shape(NamedTuple):
    hidden: int
    layers: int
    heads: int
    vocabulary: int  # rows of the head: the tokenizer's 50,277 entries, padded


PYTHIA = {
    "14m": Shape(128, 6, 4, 50304),
    "31m": Shape(256, 6, 8, 50304),
    "70m": Shape(512, 6, 8, 50304),
    "160m": Shape(768, 12, 12, 50304),
    "410m": Shape(1024, 24, 16, 50304),
    "1b": Shape(2048, 16, 8, 50304),
    "1.4b": Shape(2048, 24, 16, 50304),
    "2.8b": Shape(2560, 32, 32, 50304),
    "6.9b": Shape(4096, 32, 32, 50432),
    "12b": Shape(5120, 36, 40, 50688),
}
CONTEXT = 2048


def config(shape, layers):
    return {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_size": shape.hidden,
        "intermediate_size": 4 * shape.hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": CONTEXT,
        "layer_norm_eps": 1e-5,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    }


def floating(shape, layers, precision):
    """A `gpt_neox.NeoX`, loaded as from files, on the meta device. precision: fp16 or int8."""
    hidden, vocabulary = shape.hidden, shape.vocabulary
    sizes = {"query_key_value": (3 * hidden, hidden), "dense": (hidden, hidden)}
    sizes |= {"dense_h_to_4h": (4 * hidden, hidden), "dense_4h_to_h": (hidden, 4 * hidden)}

    def read(name):
        *_, owner, part = name.split(".")
        size = (vocabulary, hidden) if owner.startswith("embed") else sizes.get(owner, (hidden, hidden))
        # one number that stands for all: nothing of a model's size is in memory
        return torch.zeros((), dtype=torch.float16).expand(
            size if part == "weight" and "norm" not in name else size[:1]
        )

    eight = {"matrix": llm_int8.quantise, "product": llm_int8.by_rows} if precision == "int8" else {}
    return gpt_neox.NeoX(config(shape, layers), read, torch.float16, "meta", **eight)


class Exact(digits.Digits):
    """Exact arithmetic of a shape, without its numbers."""

    def __init__(self, shape, layers):
        width = shape.hidden
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/config.json", "w") as file:
                json.dump(config(shape, max(layers, 1)), file)
            described = describe(folder)._replace(layers=layers)
        vectors = dict.fromkeys(
            ("gain1", "bias1", "gain2", "bias2", "query_gain", "key_gain"), np.zeros((layers, width), np.float32)
        )
        turns = np.zeros((CONTEXT, described.rotary // 2), np.float32)
        matrices = {"qkv": (3 * width, width), "out": (width, width), "up": (4 * width, width)}
        matrices |= {"down": (width, 4 * width)} | dict.fromkeys(("embedding", "head"), (shape.vocabulary, width))
        # of a matrix its size stands for its numbers; another object for each, as none is tied to another
        made = {name: SimpleNamespace(q=list(size), scale=np.zeros(size[0])) for name, size in matrices.items()}
        weights = SimpleNamespace(
            **vectors,
            **made,
            pairs=np.full(layers, described.rotary // 2),
            final_gain=np.zeros(width, np.float32),
            final_bias=np.zeros(width, np.float32),
            cosines=turns,
            sines=turns,
        )
        super().__init__(weights, described, CONTEXT, "meta")

    def _tensor(self, array):
        return torch.tensor(array) if array.ndim == 0 else torch.empty(array.shape, device="meta")

    def _matrix(self, given, layer=...):
        outputs, inputs = map(arithmetic_torch.up, given.q)
        empty = torch.empty((2, outputs, inputs), dtype=torch.int8, device="meta")
        return arithmetic_torch.Matrix(empty, *(torch.empty(outputs, device="meta") for _ in range(2)))


def model_of(name, layers, precision):
    shape = PYTHIA[name]
    return Exact(shape, layers) if precision == "exact" else floating(shape, layers, precision)


def ids_of(batch, length):
    return torch.zeros((batch, length), dtype=torch.int64)


# --- fused kernels, by what they are specified to read and write ---------------------------------------------------


WRITTEN, ALL = 1, 2  # which kernels are fused: see `fused_kernels`


@contextmanager
def fused_kernels(counter, which):
    """Within, exact arithmetic's digits, linear layers and attention and the integer intervals are one kernel each.

    which: WRITTEN, or ALL, where norms, rotary turns and activations are, too.
    """

    def note(name, moved, int8=0):
        counter.kernels.append(counting.Kernel(name, 1, int(moved), 0, int(int8)))

    def made(*shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device="meta")

    def digits_of_rows(x):
        note("digits_of_rows", x.numel() * (4 + 2))
        return made(2, *x.shape, dtype=torch.int8), made(*x.shape[:-1], 1)

    def linear(x, matrix):
        _, outputs, inputs = matrix.digits.shape
        digits_of_rows(x)
        note(
            "linear",
            2 * x.numel() + matrix.digits.numel() + 4 * len(x) * outputs,
            4 * 2 * len(x) * outputs * inputs,
        )
        return made(len(x), outputs)

    def attend(self, queries, scales, first, cache):
        sequences, heads, _, group, rows, size = queries.shape
        seen = sum(range(first + 1, first + rows + 1))
        moved = queries.numel() + cache.keys.numel() + cache.values.numel() + 4 * queries.numel() // 2
        # scores twice, four products of digits each; weights of three digits with values of two
        note("attention", moved, sequences * heads * group * seen * 2 * size * (2 * 4 + 3 * 2))
        return made(*queries.shape[:2], group, rows, self.description.head_dim)

    def integers(logits, targets):
        note("intervals", 8 * logits.numel() + (8 + 56) * len(logits))  # reads them twice
        return made(7, len(logits), dtype=torch.int64)

    def elementwise(self_or_x, *given):
        x = next(part for part in (self_or_x, *given) if isinstance(part, torch.Tensor))
        note("elementwise", 8 * x.numel())
        return made(*x.shape)

    def turn(self, part, *given):
        return elementwise(part).unflatten(2, (-1, self.description.head_dim))

    more = ExitStack()
    if which == ALL:
        for owner, name, stand_in in (
            (arithmetic_torch, "activate", elementwise),
            (arithmetic_torch, "norm", elementwise),
            (digits.Digits, "_turn", turn),
        ):
            more.enter_context(mock.patch.object(owner, name, stand_in))
    with (
        more,
        mock.patch.object(arithmetic_torch, "digits_of_rows", digits_of_rows),
        mock.patch.object(arithmetic_torch, "linear", linear),
        mock.patch.object(digits, "linear", linear, create=True),
        mock.patch.object(digits, "ELEMENTS", 1 << 60),
        mock.patch.object(digits.Digits, "_attend", attend),
        mock.patch.object(torch_scoring.integer_softmax_torch, "integers", integers),
    ):
        yield
