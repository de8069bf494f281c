"""The families that exact arithmetic computes: what all models of one have in common, and how they name their tensors.

docs/arithmetic.md, section 7, has the same in tables. Where a trait is a string, it is the key of config.json that
says so of a model; `defaults` is what transformers takes where config.json does not name a key.
"""

from typing import NamedTuple

from bitlaw.models.exact.arithmetic import GELU, GELU_TANH, SILU

SILUS = {"silu": SILU, "swish": SILU}
TANHS = {"gelu_new": GELU_TANH, "gelu_fast": GELU_TANH, "gelu_pytorch_tanh": GELU_TANH}
PER_HEAD, WHOLE = 1, 2  # q/k norm: of each head; of all heads together


class Names(NamedTuple):
    """Names of tensors, those of a layer without `layers.N.`; several that are one matrix here, in their order."""

    norm1: str = "input_layernorm"
    norm2: str = "post_attention_layernorm"
    qkv: tuple = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    up: tuple = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    embedding: str = "embed_tokens"
    final: str = "norm"
    head: str = "lm_head"
    model: str = "model."  # before all but the head


class Family(NamedTuple):
    """Traits of a Description (see `description`), as a value or as the key that holds it."""

    defaults: dict
    epsilon: str = "rms_norm_eps"
    layer_norm: bool = False
    unit_gain: bool = False
    post_norm: bool = False
    parallel: str | bool = False
    gated: bool = True
    activations: dict = SILUS
    qk_norm: int = 0
    qkv_bias: str | bool = False
    out_bias: str | bool = False
    mlp_bias: str | bool = False
    share: str | None = None  # key of the part of a head that turns, where it may be less than all
    unturned: bool = False  # whether no_rope_layers leaves out the turning of some layers
    windowed: bool = False  # whether sliding_window counts without use_sliding_window
    root_width: bool = False  # whether the embedding is multiplied by the root of the width
    scaled: bool = False  # whether it has Granite's multipliers
    refused: tuple = ()  # flags that this decoder computes only when they are false
    ignored: tuple = ()  # keys without a meaning in this family
    names: Names = Names()


_BIASED = {"qkv_bias": "attention_bias", "out_bias": "attention_bias"}
_GRANITE = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")

FAMILIES = {
    "gpt_neox": Family(
        {"rotary_pct": 0.25, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
        | {"attention_bias": True, "use_parallel_residual": True},
        epsilon="layer_norm_eps",
        layer_norm=True,
        parallel="use_parallel_residual",
        gated=False,
        activations={"gelu": GELU} | TANHS,
        **_BIASED,
        mlp_bias=True,
        share="rotary_pct",
        ignored=("head_dim", "num_key_value_heads"),
        names=Names(
            qkv=("attention.query_key_value",),
            out="attention.dense",
            up=("mlp.dense_h_to_4h",),
            down="mlp.dense_4h_to_h",
            embedding="embed_in",
            final="final_layer_norm",
            head="embed_out",
            model="gpt_neox.",
        ),
    ),
    "llama": Family({"rms_norm_eps": 1e-6}, **_BIASED, mlp_bias="mlp_bias"),
    "mistral": Family(
        {"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096},
        windowed=True,
    ),
    "qwen2": Family({"rms_norm_eps": 1e-6, "num_key_value_heads": 32}, qkv_bias=True),
    "qwen3": Family({"rms_norm_eps": 1e-6, "num_key_value_heads": 32, "head_dim": 128}, qk_norm=PER_HEAD, **_BIASED),
    "olmo2": Family(
        {"rms_norm_eps": 1e-5},
        post_norm=True,
        qk_norm=WHOLE,
        **_BIASED,
        names=Names(norm1="post_attention_layernorm", norm2="post_feedforward_layernorm"),
    ),
    "stablelm": Family(
        {"layer_norm_eps": 1e-5, "num_key_value_heads": 32, "partial_rotary_factor": 0.25},
        epsilon="layer_norm_eps",
        layer_norm=True,
        qkv_bias="use_qkv_bias",
        share="partial_rotary_factor",
        refused=("use_parallel_residual", "qk_layernorm"),
        ignored=("head_dim",),
    ),
    "phi3": Family(
        {"rms_norm_eps": 1e-5},
        share="partial_rotary_factor",
        windowed=True,
        names=Names(qkv=("self_attn.qkv_proj",), up=("mlp.gate_up_proj",)),
    ),
    "granite": Family(
        {"rms_norm_eps": 1e-6} | dict.fromkeys(_GRANITE, 1.0),
        **_BIASED,
        mlp_bias="mlp_bias",
        scaled=True,
    ),
    "smollm3": Family(
        {"rms_norm_eps": 1e-6, "num_key_value_heads": 4, "rope_theta": 2e6, "no_rope_layer_interval": 4}
        | {"tie_word_embeddings": True},
        **_BIASED,
        mlp_bias="mlp_bias",
        unturned=True,
    ),
    "gemma": Family(
        {"rms_norm_eps": 1e-6, "num_key_value_heads": 16, "head_dim": 256}
        | {"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
        unit_gain=True,
        root_width=True,
        activations={"gelu": GELU_TANH} | TANHS,  # as transformers reads the first releases' gelu
        **_BIASED,
        refused=("use_bidirectional_attention",),
    ),
}
