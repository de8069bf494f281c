"""The GPT-NeoX forward pass (Black et al. 2022) in floating point: fp32, bf16, fp16, and LLM.int8 by `llm_int8`.

A token's logits depend in their last bits on batch, length and step, so streams are coded in lock-step (see
`compression.lockstep`); exact arithmetic is elsewhere (`exact`).
"""

import torch
from torch.nn.functional import embedding, gelu, layer_norm, linear, scaled_dot_product_attention


def not_covered(config):
    """The first setting of a GPT-NeoX `config` (config.json's content) that `NeoX` does not compute; None if none.

    `NeoX` would compute something else without a word; transformers knows these settings.
    """
    kind, _, share = _rotary(config)
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    # what is no number, `exact.description` refuses
    numbers = all(isinstance(value, int | float) for value in (heads, width, share)) and heads > 0
    rotary = int(width // heads * share) if numbers else 0
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
    if not isinstance(rope, dict):
        return rope, None, None
    base = rope.get("rope_theta", config.get("rotary_emb_base", 10000.0))
    share = rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
    return rope.get("rope_type", rope.get("type", "default")), base, share


class NeoX:
    """Weights and shape of a GPT-NeoX model (Black et al. 2022) in one dtype on one device.

    `config` is config.json's content; `read` gives the tensor of a name of Pythia's, without "gpt_neox.", and is asked
    for one after the other. `matrix`, if given, makes of (layer, name, tensor) of a matrix of the blocks what `product`
    multiplies with: no more than one of them is there in `dtype`, too.
    """

    architecture = "gpt_neox"
    prefix = given_context = None  # see `checkpoint.load`

    libraries = ()  # beside torch, whose kernels it calls
    equally_long = False  # whether the sequences of a batch must be: see `llm_int8`

    def __init__(self, config, read, dtype=torch.float32, device="cpu", matrix=None, product=linear):
        def get(name):
            return read(name).to(device, dtype)

        def parameters(layer, short, long):
            weight, bias = (get(f"layers.{layer}.{long}.{part}") for part in ("weight", "bias"))
            return (matrix(layer, short, weight) if matrix and weight.dim() == 2 else weight), bias

        self.dtype, self.device = dtype, torch.device(device)
        self.product = product  # of the blocks, (x `[batch, length, in]`, weight, bias)
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.width = config["hidden_size"]
        self.size = self.width // self.heads
        self.context = config["max_position_embeddings"]
        self.eps = config["layer_norm_eps"]
        self.parallel = config.get("use_parallel_residual", True)
        self.embedding, self.head_weight = get("embed_in.weight"), get("embed_out.weight")
        self.vocabulary = self.head_weight.shape[0]
        self.final_norm = get("final_layer_norm.weight"), get("final_layer_norm.bias")
        self.blocks = [
            {
                short: parameters(i, short, long)
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
        sines = angles.sin()
        sines[:, : rotary // 2].neg_()
        self.cos, self.sin = angles.cos().to(device, dtype), sines.to(device, dtype)

    def new_cache(self, batch, length):
        """Room for the keys and values of `length` positions."""
        shape = (self.layers, 2, batch, self.heads, length, self.size)
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    @torch.inference_mode()
    def hidden(self, ids, cache=None, past=0):
        """Final hidden states `[batch, length, width]` of `ids`, int64 `[batch, length]`, at positions from `past`.

        `cache` (from `new_cache`) holds the `past` positions before and receives the new ones.
        """
        length = ids.shape[1]
        if past + length > self.context:
            raise ValueError(f"{past + length} tokens exceed the context of {self.context}")
        x = embedding(ids.to(self.device), self.embedding)
        turn = tuple(t[past : past + length, None, None] for t in (self.cos, self.sin))
        # what each of several tokens behind a cache may see; a first block and a single token need no mask
        mask = None
        if past and length > 1:
            mask = torch.ones(length, past + length, dtype=torch.bool, device=self.device).tril(past)
        for number, block in enumerate(self.blocks):
            store = None if cache is None else cache[number]
            attended = self._attention(block, self._norm(x, block["norm1"]), store, past, turn, mask)
            if self.parallel:
                x = self._mlp(block, x) + attended + x  # in the order in which transformers adds them
            else:
                x = attended + x
                x = self._mlp(block, x) + x
        return self._norm(x, self.final_norm)

    def _norm(self, x, weight_and_bias):
        return layer_norm(x, (self.width,), *weight_and_bias, self.eps)

    def _mlp(self, block, x):
        return self.product(gelu(self.product(self._norm(x, block["norm2"]), *block["up"])), *block["down"])

    def _rotate(self, x, cos, sin):
        """Rotary embedding (Su et al. 2021) of the first `rotary` entries of `x`, `[batch, length, heads, 2, size]`, in
        place; the first half of `sin` is negative, as that half takes the other away."""
        turned = x[..., : self.rotary]
        left, right = turned.chunk(2, -1)
        beside = torch.cat((right, left), -1).mul_(sin)
        turned.mul_(cos).add_(beside)

    def _attention(self, block, x, store, past, turn, mask):
        batch, length, _ = x.shape
        qkv = self.product(x, *block["qkv"]).view(batch, length, self.heads, 3, self.size)
        self._rotate(qkv[..., :2, :], *turn)
        query, key, value = qkv.transpose(1, 2).unbind(3)
        if store is not None:
            end = past + length
            store[0, :, :, past:end], store[1, :, :, past:end] = key, value
            key, value = store[0, :, :, :end], store[1, :, :, :end]
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=past == 0)
        return self.product(out.transpose(1, 2).reshape(batch, length, self.width), *block["out"])

    @torch.inference_mode()
    def head(self, rows, out=None):
        """Logits, float32 `[rows, vocabulary]`, of hidden states `[rows, width]`; `out` is reused in float32."""
        if out is not None and self.dtype == torch.float32:
            return torch.mm(rows, self.head_weight.t(), out=out[: rows.shape[0]])
        return linear(rows, self.head_weight).float()
