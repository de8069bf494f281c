"""A checkpoint's tensors as integers: int16 rows with an exponent each, gains and biases in float32.

Read straight from safetensors files by numpy, one matrix at a time; bfloat16 is widened by its bits.
"""

import json
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bitlaw import InputError
from bitlaw.models.exact import arithmetic, rotary
from bitlaw.models.exact.arithmetic import OVERFLOW
from bitlaw.models.exact.description import PER_HEAD, WHOLE
from bitlaw.models.exact.products import LANES
from bitlaw.runtime.compiling import compiled

DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# what old GPT-NeoX files carry beside the weights
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
OTHER_NAMES = {"embed_out.weight": "lm_head.weight", "lm_head.weight": "embed_out.weight"}
LARGEST_HEADER = 1 << 27  # bytes


class Matrices(NamedTuple):
    """Integer matrices `[..., blocks, pairs, 16, 2]` (see products), 2^e of each output and biases, float32.

    `...` is the layers, or nothing for the embedding and the head. Outputs are padded to a multiple of 16.
    """

    q: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


class Weights(NamedTuple):
    """All that a decoder computes with. Gains and biases of norms are float32 `[layers, n]`, absent ones zeros."""

    embedding: Matrices
    head: Matrices
    qkv: Matrices  # rows of all query heads, then those of the key heads, then those of the value heads
    out: Matrices
    up: Matrices  # gated: rows of the gate, then those it multiplies
    down: Matrices
    gain1: np.ndarray
    bias1: np.ndarray
    gain2: np.ndarray
    bias2: np.ndarray
    final_gain: np.ndarray
    final_bias: np.ndarray
    query_gain: np.ndarray
    key_gain: np.ndarray
    cosines: np.ndarray  # [positions, rotary / 2]
    sines: np.ndarray


class Checkpoint:
    """The tensors of the safetensors files of a folder, by name, each read when asked for."""

    def __init__(self, folder):
        self.folder = Path(folder)
        paths = sorted(self.folder.glob("*.safetensors"))
        if not paths:
            raise InputError(f"{folder}: holds no *.safetensors; give a folder with config.json and weights")
        self._places, self._read = {}, set()
        for path in paths:
            self._places |= _header(path)

    def tensor(self, name, expected):
        """float32 array of the tensor `name`, of the expected shape and finite, or InputError."""
        name = name if name in self._places else OTHER_NAMES.get(name, name)
        if name not in self._places:
            raise InputError(f"{self.folder}: the checkpoint lacks the tensor {name}; fetch it again")
        self._read.add(name)
        path, kind, shape, offset = self._places[name]
        if kind not in DTYPES:
            raise InputError(f"{path}: {name} is of type {kind}; expected F16, BF16 or F32")
        if shape != expected:
            raise InputError(f"{path}: {name} has the shape {list(shape)}; expected {list(expected)} by config.json")
        raw = np.fromfile(path, dtype=DTYPES[kind], count=int(np.prod(shape)), offset=offset)
        if len(raw) != np.prod(shape):
            raise InputError(f"{path}: {name} is cut short; fetch it again")
        values = (raw.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else raw.astype(np.float32)
        largest = values.view(np.uint32) & 0x7FFFFFFF
        if largest.max(initial=0) >> 23 >= OVERFLOW:
            at = int(largest.argmax())
            raise InputError(f"{path}: {name} holds {values[at]} at {at}: weights are finite and below 2^120")
        return values.reshape(shape)

    def finish(self, *ignored):
        """InputError if the files hold a tensor that was not read: a decoder without it would be another model."""
        for name in sorted(self._places.keys() - self._read - set(ignored)):
            raise InputError(f"{self._places[name][0]}: {name} has no place in the model that config.json describes")

    def __contains__(self, name):
        return name in self._places or OTHER_NAMES.get(name) in self._places


def _header(path):
    """Name to (path, type, shape, offset in the file) of the tensors of one file."""
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > LARGEST_HEADER:
                raise ValueError("its header is too long")
            entries = json.loads(file.read(size))
        return {
            name: (path, entry["dtype"], tuple(entry["shape"]), 8 + size + entry["data_offsets"][0])
            for name, entry in entries.items()
            if name != "__metadata__" and not name.endswith(BUFFERS)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise InputError(f"{path}: not a safetensors file ({error}); fetch it again") from None


@compiled
def pack_rows(matrix, packed, scales):
    """Quantise the rows of a float32 matrix, each on its own, into `packed`, zeros before, as products.pack has it.

    scales, float32 `[>= rows]`, receives 2^e of each: docs/arithmetic.md, section 2.
    """
    integers = np.empty(matrix.shape[1], dtype=np.int16)
    for r in range(len(matrix)):
        scales[r], _ = arithmetic.quantise(matrix[r], integers)  # too large a weight was refused when it was read
        block, lane = packed[r // LANES], r % LANES
        for i in range(len(integers)):
            block[i // 2, lane, i % 2] = integers[i]


class _Stack:
    """Fills Matrices of `layers` layers (None: a single one), `outputs` by `inputs`."""

    def __init__(self, layers, outputs, inputs):
        first = () if layers is None else (layers,)
        blocks = -(-outputs // LANES)
        self.filled = Matrices(
            np.zeros((*first, blocks, -(-inputs // 2), LANES, 2), dtype=np.int16),
            np.zeros((*first, blocks * LANES), dtype=np.float32),
            np.zeros((*first, blocks * LANES), dtype=np.float32),
        )

    def fill(self, layer, matrix, bias=None):
        at = () if layer is None else (layer,)
        pack_rows(np.ascontiguousarray(matrix), self.filled.q[at], self.filled.scale[at])
        if bias is not None:
            self.filled.bias[(*at, slice(len(bias)))] = bias


def load_weights(folder, description, positions):
    """Weights of the checkpoint in `folder`, with rotary tables of `positions` positions; InputError if it is bad."""
    d, checkpoint = description, Checkpoint(folder)
    neox = d.family == "gpt_neox"
    prefix = "gpt_neox." if neox else "model."
    if not neox and "model.embed_tokens.weight" not in checkpoint and "embed_tokens.weight" in checkpoint:
        prefix = ""
    queries, keys = d.heads * d.head_dim, d.kv_heads * d.head_dim
    qkv, out = _Stack(d.layers, queries + 2 * keys, d.width), _Stack(d.layers, d.width, queries)
    up, down = _Stack(d.layers, d.mlp * (1 + d.gated), d.width), _Stack(d.layers, d.width, d.mlp)
    norms = np.zeros((4, d.layers, d.width), dtype=np.float32)
    qk_shapes = {PER_HEAD: (d.head_dim, d.head_dim), WHOLE: (queries, keys)}.get(d.qk_norm, (0, 0))
    query_gain, key_gain = (np.zeros((d.layers, n), dtype=np.float32) for n in qk_shapes)
    if d.post_norm:
        norm_names = "post_attention_layernorm", "post_feedforward_layernorm"
    else:
        norm_names = "input_layernorm", "post_attention_layernorm"

    for i in range(d.layers):
        start = f"{prefix}layers.{i}."

        def read(name, shape, start=start):
            return checkpoint.tensor(start + name, shape)

        def read_linear(names, sizes, inputs, biased, start=start):
            matrix = [checkpoint.tensor(f"{start}{n}.weight", (size, inputs)) for n, size in zip(names, sizes)]  # noqa: B905
            bias = [checkpoint.tensor(f"{start}{n}.bias", (size,)) for n, size in zip(names, sizes)] if biased else None  # noqa: B905
            return np.concatenate(matrix), np.concatenate(bias) if biased else None

        for n, name in enumerate(norm_names):
            norms[2 * n, i] = read(f"{name}.weight", (d.width,))
            if d.layer_norm:
                norms[2 * n + 1, i] = read(f"{name}.bias", (d.width,))
        if neox:
            matrix, bias = read_linear(["attention.query_key_value"], [3 * queries], d.width, d.qkv_bias)
            qkv.fill(i, _by_part(matrix, d), _by_part(bias, d) if d.qkv_bias else None)
            out.fill(i, *read_linear(["attention.dense"], [d.width], queries, d.out_bias))
            up.fill(i, *read_linear(["mlp.dense_h_to_4h"], [d.mlp], d.width, d.mlp_bias))
            down.fill(i, *read_linear(["mlp.dense_4h_to_h"], [d.width], d.mlp, d.mlp_bias))
        else:
            names = [f"self_attn.{n}_proj" for n in "qkv"]
            qkv.fill(i, *read_linear(names, [queries, keys, keys], d.width, d.qkv_bias))
            out.fill(i, *read_linear(["self_attn.o_proj"], [d.width], queries, d.out_bias))
            up.fill(i, *read_linear(["mlp.gate_proj", "mlp.up_proj"], [d.mlp, d.mlp], d.width, d.mlp_bias))
            down.fill(i, *read_linear(["mlp.down_proj"], [d.width], d.mlp, d.mlp_bias))
        if d.qk_norm:
            query_gain[i] = read("self_attn.q_norm.weight", (qk_shapes[0],))
            key_gain[i] = read("self_attn.k_norm.weight", (qk_shapes[1],))

    final = f"{prefix}final_layer_norm" if neox else f"{prefix}norm"
    final_gain = checkpoint.tensor(f"{final}.weight", (d.width,))
    final_bias = checkpoint.tensor(f"{final}.bias", (d.width,)) if d.layer_norm else np.zeros_like(final_gain)
    embedding, head = _Stack(None, d.vocabulary, d.width), None
    shape = (d.vocabulary, d.width)
    embedding.fill(None, checkpoint.tensor(f"{prefix}{'embed_in' if neox else 'embed_tokens'}.weight", shape))
    if not d.tied:
        head = _Stack(None, d.vocabulary, d.width)
        head.fill(None, checkpoint.tensor("embed_out.weight" if neox else "lm_head.weight", shape))
    checkpoint.finish(*OTHER_NAMES if d.tied else ())
    turns = rotary.tables(rotary.frequencies(d.rotary, d.base, d.scaling), positions)
    return Weights(
        embedding.filled,
        (head or embedding).filled,
        qkv.filled,
        out.filled,
        up.filled,
        down.filled,
        *norms,
        final_gain,
        final_bias,
        query_gain,
        key_gain,
        *turns,
    )


def _by_part(rows, d):
    """GPT-NeoX's rows of queries, keys and values of each head in turn, as all queries, all keys, all values."""
    parts = rows.reshape(d.heads, 3, d.head_dim, *rows.shape[1:])
    return np.ascontiguousarray(np.moveaxis(parts, 1, 0)).reshape(rows.shape)
