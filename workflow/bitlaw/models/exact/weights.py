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
from bitlaw.models.exact.families import FAMILIES, PER_HEAD, WHOLE
from bitlaw.models.exact.products import LANES
from bitlaw.runtime.compiling import compiled

DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# what old GPT-NeoX files carry beside the weights
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
OTHER_NAMES = {"embed_out.weight": "lm_head.weight", "lm_head.weight": "embed_out.weight"}
LARGEST_HEADER = 1 << 27  # bytes
ONE = np.float32(1)


class Matrices(NamedTuple):
    """Integer matrices `[..., blocks, pairs, 16, 2]` (see products), 2^e of each output and biases, float32.

    `...` is the layers, or nothing for the embedding and the head. Outputs are padded to a multiple of 16.
    """

    q: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


class Weights(NamedTuple):
    """All that a decoder computes with. Gains and biases of norms are float32 `[layers, n]`, absent ones zeros.

    What a Description scales is in the scales and biases of its matrices.
    """

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
    pairs: np.ndarray  # int64 [layers]: of each head, how many pairs of numbers turn
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

    def fill(self, layer, matrix, bias=None, scale=ONE):
        """`scale`, float32: the outputs are this many times as large."""
        at = () if layer is None else (layer,)
        pack_rows(np.ascontiguousarray(matrix), self.filled.q[at], self.filled.scale[at])
        self.filled.scale[at] *= scale
        if bias is not None:
            self.filled.bias[(*at, slice(len(bias)))] = bias * scale


def load_weights(folder, description, positions):
    """Weights of the checkpoint in `folder`, with rotary tables of `positions` positions; InputError if it is bad."""
    d, checkpoint, names = description, Checkpoint(folder), FAMILIES[description.family].names
    model = names.model
    if f"{model}{names.embedding}.weight" not in checkpoint and f"{names.embedding}.weight" in checkpoint:
        model = ""
    queries, keys = d.heads * d.head_dim, d.kv_heads * d.head_dim
    qkv, out = _Stack(d.layers, queries + 2 * keys, d.width), _Stack(d.layers, d.width, queries)
    up, down = _Stack(d.layers, d.mlp * (1 + d.gated), d.width), _Stack(d.layers, d.width, d.mlp)
    norms = np.zeros((4, d.layers, d.width), dtype=np.float32)
    qk_shapes = {PER_HEAD: (d.head_dim, d.head_dim), WHOLE: (queries, keys)}.get(d.qk_norm, (0, 0))
    query_gain, key_gain = (np.zeros((d.layers, n), dtype=np.float32) for n in qk_shapes)
    qkv_sizes = [queries, keys, keys] if len(names.qkv) > 1 else [queries + 2 * keys]
    up_sizes = [d.mlp] * len(names.up) if len(names.up) > 1 else [d.mlp * (1 + d.gated)]

    def read_gain(name, size):
        stored = checkpoint.tensor(f"{name}.weight", (size,))
        return stored + ONE if d.unit_gain else stored

    def read_bias(name, size):
        return checkpoint.tensor(f"{name}.bias", (size,)) if d.layer_norm else np.zeros(size, dtype=np.float32)

    def read_linear(at, parts, sizes, inputs, biased):
        parts = [(f"{at}{part}", size) for part, size in zip(parts, sizes, strict=True)]
        matrix = np.concatenate([checkpoint.tensor(f"{name}.weight", (size, inputs)) for name, size in parts])
        return matrix, np.concatenate([checkpoint.tensor(f"{n}.bias", (s,)) for n, s in parts]) if biased else None

    for i in range(d.layers):
        at = f"{model}layers.{i}."
        for n, name in enumerate((names.norm1, names.norm2)):
            norms[2 * n, i] = read_gain(at + name, d.width)
            norms[2 * n + 1, i] = read_bias(at + name, d.width)
        matrix, bias = read_linear(at, names.qkv, qkv_sizes, d.width, d.qkv_bias)
        if d.family == "gpt_neox":
            matrix, bias = _by_part(matrix, d), None if bias is None else _by_part(bias, d)
        qkv.fill(i, matrix, bias)
        out.fill(i, *read_linear(at, [names.out], [d.width], queries, d.out_bias), d.residual_scale)
        up.fill(i, *read_linear(at, names.up, up_sizes, d.width, d.mlp_bias))
        down.fill(i, *read_linear(at, [names.down], [d.width], d.mlp, d.mlp_bias), d.residual_scale)
        if d.qk_norm:
            query_gain[i] = read_gain(f"{at}self_attn.q_norm", qk_shapes[0])
            key_gain[i] = read_gain(f"{at}self_attn.k_norm", qk_shapes[1])

    final = f"{model}{names.final}"
    final_gain, final_bias = read_gain(final, d.width), read_bias(final, d.width)
    shape = d.vocabulary, d.width
    embedding, head = _Stack(None, *shape), None
    embedding.fill(None, checkpoint.tensor(f"{model}{names.embedding}.weight", shape))
    if not d.tied:
        head = _Stack(None, *shape)
        head.fill(None, checkpoint.tensor(f"{names.head}.weight", shape))
    checkpoint.finish(*OTHER_NAMES if d.tied else ())
    turns = rotary.tables(rotary.frequencies(d.rotary, d.base, d.scaling), positions)
    return Weights(
        _scaled(embedding.filled, d.embedding_scale),
        _scaled((head or embedding).filled, d.head_scale),
        qkv.filled,
        out.filled,
        up.filled,
        down.filled,
        *norms,
        final_gain,
        final_bias,
        query_gain,
        key_gain,
        np.array(d.turned, dtype=np.int64) * (d.rotary // 2),
        *turns,
    )


def _scaled(matrices, scale):
    """Matrices of one layer whose outputs are `scale` times as large; the integers are the same array."""
    return matrices._replace(scale=matrices.scale * scale)


def _by_part(rows, d):
    """GPT-NeoX's rows of queries, keys and values of each head in turn, as all queries, all keys, all values."""
    parts = rows.reshape(d.heads, 3, d.head_dim, *rows.shape[1:])
    return np.ascontiguousarray(np.moveaxis(parts, 1, 0)).reshape(rows.shape)
