"""A GGUF file of llama.cpp to a checkpoint folder: weights dequantised to float32, configuration, tokenizer.

The dequantised weights are the model: what is measured is the quantised one, at the arithmetic of the cell.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

from bitlaw import InputError
from bitlaw.models import gguf_tokenizer
from bitlaw.models.gguf_tokenizer import value
from bitlaw.runtime.atomic import replacing_folder

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
CONFIG = {  # of either class: key of the metadata behind the architecture's name
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
ROPE_THETA = 10000.0  # of files that do not name it, as llama.cpp has it
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
BIASED = ("attn_q", "attn_k", "attn_v")  # in qwen2


def convert(source, folder):
    """Make the checkpoint `folder` (config.json, model.safetensors, tokenizer.json) of the one *.gguf in `source`.

    `source` is a folder that `sources.fetch` made. Raises InputError as `convert_file` does.
    """
    record = json.loads((Path(source) / "source.json").read_text())
    files = [Path(source) / entry["path"] for entry in record["files"] if entry["path"].endswith(".gguf")]
    if len(files) != 1:
        raise InputError(f"{source}: holds {len(files)} *.gguf files; a model is one: correct `members` of its source")
    convert_file(files[0], folder)


def convert_file(path, folder):
    """Make the checkpoint `folder` of the GGUF file `path`.

    Raises InputError for what is no Llama or Qwen2 model with a tokenizer known to `gguf_tokenizer`.
    """
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}: not a readable GGUF file ({error}); fetch it again") from None
    meta = {name: field.contents() for name, field in reader.fields.items()}
    if (architecture := value(meta, "general.architecture", path)) not in ARCHITECTURES:
        raise InputError(f"{path}: architecture {architecture!r}; only {', '.join(ARCHITECTURES)} are converted")
    tokenizer = gguf_tokenizer.build(meta, path)  # first: it is refused in no time
    weights = _weights(reader, meta, path)
    with replacing_folder(folder) as new:
        (new / "config.json").write_text(json.dumps(_config(meta, weights, path), indent=1) + "\n")
        save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(new / "tokenizer.json"))


def _config(meta, weights, path):
    """config.json as transformers reads it."""
    architecture = meta["general.architecture"]
    meta = {f"{architecture}.rope.freq_base": ROPE_THETA} | meta
    found = {name: value(meta, f"{architecture}.{key}", path) for name, key in CONFIG.items()}
    whole = found["hidden_size"] // found["num_attention_heads"]
    head_dim = meta.get(f"{architecture}.attention.key_length", meta.get(f"{architecture}.rope.dimension_count", whole))
    ids = {name: f"tokenizer.ggml.{name}" for name in ("bos_token_id", "eos_token_id")}
    return {
        "architectures": [ARCHITECTURES[architecture]],
        "model_type": architecture,
        **found,
        "head_dim": head_dim,
        **{name: meta[key] for name, key in ids.items() if key in meta},
        "vocab_size": len(weights["model.embed_tokens.weight"]),
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "dtype": "float32",
    }


def _weights(reader, meta, path):
    """Name in the class to float32 array `[outputs, inputs]` or `[width]`."""
    architecture = meta["general.architecture"]
    scaling = [key for key in meta if key.startswith(f"{architecture}.rope.scaling.")]
    if [key for key in scaling if meta[key] != "none"]:
        raise InputError(f"{path}: {scaling[0]} = {meta[scaling[0]]!r}; scaled rotary embeddings are not converted")
    heads = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
    weights = {}
    for tensor in reader.tensors:
        name = _name(tensor.name, architecture)
        if name is None:
            raise InputError(f"{path}: no place for the tensor {tensor.name!r} in a {architecture} model")
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError:
            raise InputError(
                f"{path}: {tensor.name} is of type {tensor.tensor_type.name}, which the gguf package does not "
                "dequantise; give a file of another type"
            ) from None
        part = tensor.name.split(".")[-2]
        if part in heads and architecture == "llama":  # others are stored in the order of transformers
            values = _halves(values, value(meta, heads[part], path))
        weights[name] = np.ascontiguousarray(values)
    return weights


def _name(name, architecture):
    """The name in the class of `architecture` of a tensor of llama.cpp, or None."""
    match name.split("."):
        case [part, "weight"] if part in OUTER:
            return f"{OUTER[part]}.weight"
        case ["blk", number, part, "weight"] if part in LAYER:
            return f"model.layers.{number}.{LAYER[part]}.weight"
        case ["blk", number, part, "bias"] if part in BIASED and architecture == "qwen2":
            return f"model.layers.{number}.{LAYER[part]}.bias"
    return None


def _halves(weight, heads):
    """llama.cpp rotates neighbouring outputs of a head, transformers its two halves: the order of the latter."""
    outputs, inputs = weight.shape
    return weight.reshape(heads, outputs // heads // 2, 2, inputs).swapaxes(1, 2).reshape(outputs, inputs)
