"""Tiny random checkpoints of every family that exact arithmetic knows, written without any model library."""

import json

import numpy as np
from safetensors.numpy import save_file

FAMILIES = ("gpt_neox", "llama", "mistral", "qwen2", "qwen3", "olmo2")
FAMILIES += ("stablelm", "phi3", "granite", "smollm3", "gemma")
MULTIPLIERS = {
    **{"embedding_multiplier": 12.0, "attention_multiplier": 0.1},
    **{"residual_multiplier": 0.22, "logits_scaling": 1.5},
}
BASE = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def config_of(family, **changes):
    """config.json of a tiny model, as a dict; a change to None removes the key."""
    config = BASE | {"model_type": family, "architectures": [ARCHITECTURES[family]]}
    if family == "gpt_neox":
        # odd sizes: rows are rounded up inside
        config |= {"hidden_size": 44, "rotary_pct": 0.4, "layer_norm_eps": 1e-5, "hidden_act": "gelu"}
    else:
        config |= {"num_key_value_heads": 2, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0}
        config["intermediate_size"] = 71
    if family == "mistral":
        config |= {"sliding_window": None, "head_dim": 10}
    if family == "qwen3":
        config |= {"head_dim": 16}
    if family == "stablelm":
        del config["rms_norm_eps"]
        config |= {"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "use_qkv_bias": True}
    if family == "phi3":
        config |= {"sliding_window": None, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "granite":
        config |= MULTIPLIERS
    if family == "smollm3":
        config |= {"no_rope_layer_interval": 2, "tie_word_embeddings": False}
        config |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "gemma":
        config |= {"head_dim": 16, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True}
    config |= changes
    return {key: value for key, value in config.items() if value is not None or key == "sliding_window"}


ARCHITECTURES = {
    "gpt_neox": "GPTNeoXForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "gemma": "GemmaForCausalLM",
}


def shapes_of(config):
    """Tensor name to shape of the checkpoint that `config` describes."""
    c, width, mlp, vocabulary = config, config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, found = c["num_attention_heads"], {}
    size = c.get("head_dim") or width // heads
    queries, keys = heads * size, c.get("num_key_value_heads", heads) * size
    family = c["model_type"]
    if family == "gpt_neox":
        for i in range(c["num_hidden_layers"]):
            at = f"gpt_neox.layers.{i}."
            for name, outputs, inputs in (
                ("attention.query_key_value", 3 * width, width),
                ("attention.dense", width, width),
                ("mlp.dense_h_to_4h", mlp, width),
                ("mlp.dense_4h_to_h", width, mlp),
            ):
                found |= {f"{at}{name}.weight": (outputs, inputs), f"{at}{name}.bias": (outputs,)}
            for name in ("input_layernorm", "post_attention_layernorm"):
                found |= {f"{at}{name}.weight": (width,), f"{at}{name}.bias": (width,)}
        found |= {f"gpt_neox.final_layer_norm.{part}": (width,) for part in ("weight", "bias")}
        return found | {"gpt_neox.embed_in.weight": (vocabulary, width), "embed_out.weight": (vocabulary, width)}
    norm_parts = ("weight", "bias") if family == "stablelm" else ("weight",)
    second = "post_feedforward_layernorm" if family == "olmo2" else "input_layernorm"
    parts = {"q": queries, "k": keys, "v": keys, "o": width}
    if family == "phi3":
        parts = {"qkv": queries + 2 * keys, "o": width}
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, outputs in parts.items():
            found[f"{at}self_attn.{name}_proj.weight"] = outputs, queries if name == "o" else width
            if c.get("attention_bias") or ((family == "qwen2" or c.get("use_qkv_bias")) and name != "o"):
                found[f"{at}self_attn.{name}_proj.bias"] = (outputs,)
        ups = {"gate_up": 2 * mlp} if family == "phi3" else {"gate": mlp, "up": mlp}
        for name, outputs in (ups | {"down": width}).items():
            found[f"{at}mlp.{name}_proj.weight"] = outputs, mlp if name == "down" else width
            if c.get("mlp_bias"):
                found[f"{at}mlp.{name}_proj.bias"] = (outputs,)
        norms = ("post_attention_layernorm", second)
        found |= {f"{at}{name}.{part}": (width,) for name in norms for part in norm_parts}
        if family in ("qwen3", "olmo2"):
            sizes = (size, size) if family == "qwen3" else (queries, keys)
            found |= {f"{at}self_attn.{n}_norm.weight": (s,) for n, s in zip("qk", sizes, strict=True)}
    found |= {f"model.norm.{part}": (width,) for part in norm_parts}
    found |= {"model.embed_tokens.weight": (vocabulary, width)}
    return found if c.get("tie_word_embeddings") else found | {"lm_head.weight": (vocabulary, width)}


def weights_of(config, seed=0, gain=1.0):
    """Random float32 tensors, steep enough that tokens and context make a difference."""
    random = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes_of(config).items():
        values = random.standard_normal(shape)
        if len(shape) == 2:
            values *= 2.0 / np.sqrt(shape[1])
        else:
            centre = "norm" in name and name.endswith("weight") and config["model_type"] != "gemma"  # its are less one
            values = centre + 0.2 * values
        found[name] = (gain * values).astype(np.float32)
    return found


def write(folder, config, weights):
    """The checkpoint as files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


def checkpoint(folder, family, seed=0, **changes):
    config = config_of(family, **changes)
    return write(folder, config, weights_of(config, seed))
