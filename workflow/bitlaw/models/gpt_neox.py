"""The GPT-NeoX forward pass, invariant: a token's logits do not depend on batch, length or step.

One-shot scoring and step-by-step decoding must agree to the last bit, or what was encoded does not decode.
On the CPU that holds when the matrix library keeps its order of summation (MKL_CBWR, set in
`bitlaw/__init__.py`), every matrix product has at least ROWS rows, and the keys are attended to in
blocks of KEYS, the last one padded: a row of the softmax is then summed in the same lanes on both sides, and the
sum over values has the same terms in the same order (one product over all keys would not: the library cuts long
sums by their length). This is a property of kernels, not of a standard: it is tested on the machine, for the
model, before it is relied on (`known_answer`).
"""

import math

import torch
from torch.nn.functional import embedding, gelu, layer_norm, linear

ROWS = 4  # below this many rows the library switches to matrix-vector kernels
KEYS = 256
QUERIES = 256  # rows of attention at a time: bounds the [queries, keys] array and skips most masked keys


def not_covered(config):
    """The first setting of a GPT-NeoX `config` (config.json's content) that `NeoX` does not compute; None if none.

    `NeoX` would compute something else without a word; transformers knows these settings.
    """
    kind, _, share = _rotary(config)
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    rotary = int(width // heads * share) if isinstance(heads, int) and isinstance(width, int) and heads > 0 else 0
    settings = {
        f"hidden_act {config.get('hidden_act')!r}": config.get("hidden_act", "gelu") != "gelu",
        f"rotary positions of type {kind!r}": kind != "default",
        f"{rotary} rotary entries a head, an odd number": rotary % 2,
        "attention_bias false": not config.get("attention_bias", True),
        "tie_word_embeddings true": config.get("tie_word_embeddings", False),
    }
    return next((setting for setting, given in settings.items() if given), None)


def _rotary(config):
    """(type, base, share of each head) of the rotary positions, found where transformers looks for them, in its order.

    `rope_parameters` of new files and `rope_scaling` of old ones go before the names that Pythia's files have.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    base = rope.get("rope_theta", config.get("rotary_emb_base", 10000.0))
    share = rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
    return rope.get("rope_type", rope.get("type", "default")), base, share


class NeoX:
    """Weights and shape of a GPT-NeoX model (Black et al. 2022) in one dtype on one device.

    `config` is config.json's content, `weights` maps Pythia's tensor names to tensors.
    """

    architecture = "gpt_neox"

    def __init__(self, config, weights, dtype=torch.float32, device="cpu"):
        get = {name.removeprefix("gpt_neox."): tensor.to(device, dtype) for name, tensor in weights.items()}
        self.dtype, self.device = dtype, torch.device(device)
        self.product = linear  # of the blocks; `int8` puts its own here
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.width = config["hidden_size"]
        self.size = self.width // self.heads
        self.context = config["max_position_embeddings"]
        self.eps = config["layer_norm_eps"]
        self.parallel = config.get("use_parallel_residual", True)
        self.embedding, self.head_weight = get["embed_in.weight"], get["embed_out.weight"]
        self.vocabulary = self.head_weight.shape[0]
        self.final_norm = get["final_layer_norm.weight"], get["final_layer_norm.bias"]
        self.blocks = [
            {
                short: (get[f"layers.{i}.{long}.weight"], get[f"layers.{i}.{long}.bias"])
                for short, long in (
                    ("norm1", "input_layernorm"),
                    ("norm2", "post_attention_layernorm"),
                    ("qkv", "attention.query_key_value"),
                    ("out", "attention.dense"),
                    ("up", "mlp.dense_h_to_4h"),
                    ("down", "mlp.dense_4h_to_h"),
                )
            }
            for i in range(self.layers)
        ]
        _, base, share = _rotary(config)
        rotary = int(self.size * share)
        inverse = 1.0 / (base ** (torch.arange(0, rotary, 2, dtype=torch.int64).float() / rotary))
        angles = torch.outer(torch.arange(self.context).float(), inverse).repeat(1, 2)
        self.rotary = rotary
        self.cos, self.sin = angles.cos().to(device, dtype), angles.sin().to(device, dtype)

    def new_cache(self, batch, length):
        """Keys and values for `length` positions, zero where nothing was written (the padding must be finite)."""
        shape = (self.layers, 2, batch, self.heads, _padded(length), self.size)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    @torch.inference_mode()
    def hidden(self, ids, cache=None, past=0):
        """Final hidden states `[batch, length, width]` of `ids`, int64 `[batch, length]`, at positions from `past`.

        `cache` (from `new_cache`) holds the `past` positions before and receives the new ones.
        """
        batch, length = ids.shape
        if past + length > self.context:
            raise ValueError(f"{past + length} tokens exceed the context of {self.context}")
        if cache is None:
            cache = self.new_cache(batch, length)
        x = embedding(ids.to(self.device), self.embedding)
        turn = tuple(t[past : past + length, None, None] for t in (self.cos, self.sin))
        spans = [_Span(past, i, min(i + QUERIES, length), self.device) for i in range(0, length, QUERIES)]
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            normed = layer_norm(x, (self.width,), *block["norm1"], self.eps)
            attended = self._attention(block, normed, keys, values, past, turn, spans)
            if self.parallel:
                x = self._mlp(block, x) + attended + x  # in the order in which transformers adds them
            else:
                x = attended + x
                x = self._mlp(block, x) + x
        return layer_norm(x, (self.width,), *self.final_norm, self.eps)

    def _mlp(self, block, x):
        normed = layer_norm(x, (self.width,), *block["norm2"], self.eps)
        return self._product(gelu(self._product(normed, *block["up"])), *block["down"])

    def _product(self, x, weight, bias):
        """x·weightᵀ + bias over all rows of `x` `[batch, length, in]` at once, at least ROWS of them."""
        flat = x.reshape(-1, x.shape[-1])
        count = len(flat)
        if count < ROWS:
            flat = _repeated(flat)
        return self.product(flat, weight, bias)[:count].view(*x.shape[:-1], -1)

    def _rotate(self, x, cos, sin):
        """Rotary embedding (Su et al. 2021) of the first `rotary` entries of `x`, `[batch, length, heads, 2, size]`."""
        turned, rest = x[..., : self.rotary], x[..., self.rotary :]
        left, right = turned.chunk(2, -1)
        return torch.cat((turned * cos + torch.cat((-right, left), -1) * sin, rest), -1)

    def _attention(self, block, x, keys, values, past, turn, spans):
        batch, length, _ = x.shape
        qkv = self._product(x, *block["qkv"]).view(batch, length, self.heads, 3, self.size)
        query, key = self._rotate(qkv[..., :2, :], *turn).transpose(1, 2).unbind(3)
        keys[:, :, past : past + length] = key
        values[:, :, past : past + length] = qkv[..., 2, :].transpose(1, 2)
        out = [self._attend(query, keys, values, span) for span in spans]
        merged = (torch.cat(out, 2) if len(out) > 1 else out[0]).transpose(1, 2).reshape(batch, length, self.width)
        return self._product(merged, *block["out"])

    def _attend(self, query, keys, values, span):
        """Attention of the queries of `span` over every key up to the last of them."""
        query = query[:, :, span.first : span.last]
        count = query.shape[2]
        if count < ROWS:
            query = torch.cat((query, query[:, :, -1:].expand(-1, -1, ROWS - count, -1)), 2)
        scores = (query * self.size**-0.5) @ keys[:, :, : span.keys].transpose(-1, -2)
        scores[..., span.seen :].masked_fill_(span.masked, float("-inf"))
        weights = scores.softmax(-1, dtype=torch.float32).to(self.dtype)
        out = weights[..., :KEYS] @ values[:, :, :KEYS]
        for i in range(KEYS, span.keys, KEYS):
            out += weights[..., i : i + KEYS] @ values[:, :, i : i + KEYS]
        return out[:, :, :count]

    @torch.inference_mode()
    def head(self, rows, out=None):
        """Logits, float32 `[rows, vocabulary]`, of hidden states `[rows, width]`; `out` is reused in float32."""
        count = rows.shape[0]
        if count < ROWS:
            return self.head(_repeated(rows))[:count]
        if out is not None and self.dtype == torch.float32:
            return torch.mm(rows, self.head_weight.t(), out=out[:count])
        return linear(rows, self.head_weight).float()


class _Span:
    """Queries [first, last) of a pass, the keys they may need, and which of those after `seen` each must not see."""

    def __init__(self, past, first, last, device):
        self.first, self.last, self.keys = first, last, _padded(past + last)
        self.seen = past + first
        position = torch.arange(self.seen, self.seen + max(last - first, ROWS), device=device).clamp(
            max=past + last - 1
        )
        self.masked = torch.arange(self.seen, self.keys, device=device) > position[:, None]


def _padded(length):
    return math.ceil(length / KEYS) * KEYS


def _repeated(rows):
    """`rows` `[n, width]`, n < ROWS, continued by copies of its last row."""
    return torch.cat((rows, rows[-1:].expand(ROWS - len(rows), -1)))
