"""A GGUF file of llama.cpp to a checkpoint folder: weights dequantised to float32, configuration, tokenizer.

The dequantised weights are the model: what is measured is the quantised one, at the arithmetic of the cell.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from bitlaw import InputError
from bitlaw.runtime.atomic import replacing_folder

CONFIG = {  # of LlamaForCausalLM: key of the metadata
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.rope.dimension_count",
    "max_position_embeddings": "llama.context_length",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "rope_theta": "llama.rope.freq_base",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
}
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
CONTROL = 3  # of tokenizer.ggml.token_type: never the result of a merge, matched whole in the text


def convert(source, folder):
    """Make the checkpoint `folder` (config.json, model.safetensors, tokenizer.json) of the one *.gguf in `source`.

    `source` is a folder that `sources.fetch` made. Raises InputError for what is no Llama model with a tokenizer
    known here.
    """
    record = json.loads((Path(source) / "source.json").read_text())
    files = [Path(source) / entry["path"] for entry in record["files"] if entry["path"].endswith(".gguf")]
    if len(files) != 1:
        raise InputError(f"{source}: holds {len(files)} *.gguf files; a model is one: correct `members` of its source")
    path = files[0]
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}: not a readable GGUF file ({error}); fetch it again") from None
    meta = {name: field.contents() for name, field in reader.fields.items()}
    weights = _weights(reader, meta, path)
    with replacing_folder(folder) as new:
        (new / "config.json").write_text(json.dumps(_config(meta, weights, path), indent=1) + "\n")
        save_file(weights, new / "model.safetensors", metadata={"format": "pt"})
        _tokenizer(meta, path).save(str(new / "tokenizer.json"))


def _value(meta, key, path):
    if key not in meta:
        raise InputError(f"{path}: its metadata lack {key!r}; give another GGUF file of the model")
    return meta[key]


def _config(meta, weights, path):
    """config.json as transformers reads it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: _value(meta, key, path) for name, key in CONFIG.items()},
        "vocab_size": len(weights["model.embed_tokens.weight"]),
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "dtype": "float32",
    }


def _weights(reader, meta, path):
    """Name in LlamaForCausalLM to float32 array `[outputs, inputs]` or `[width]`."""
    if (architecture := _value(meta, "general.architecture", path)) != "llama":
        raise InputError(f"{path}: architecture {architecture!r}; only 'llama' is converted")
    if scaling := [key for key in meta if key.startswith("llama.rope.scaling.")]:
        raise InputError(f"{path}: {scaling[0]} = {meta[scaling[0]]!r}; scaled rotary embeddings are not converted")
    heads = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
    weights = {}
    for tensor in reader.tensors:
        name = _name(tensor.name)
        if name is None:
            raise InputError(f"{path}: no place for the tensor {tensor.name!r} in a Llama model")
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        part = tensor.name.split(".")[-2]
        if part in heads:
            values = _halves(values, _value(meta, heads[part], path))
        weights[name] = np.ascontiguousarray(values)
    return weights


def _name(name):
    """The name in LlamaForCausalLM of a tensor of llama.cpp, or None."""
    match name.split("."):
        case [part, "weight"] if part in OUTER:
            return f"{OUTER[part]}.weight"
        case ["blk", number, part, "weight"] if part in LAYER:
            return f"model.layers.{number}.{LAYER[part]}.weight"
    return None


def _halves(weight, heads):
    """llama.cpp rotates neighbouring outputs of a head, transformers its two halves: the order of the latter."""
    outputs, inputs = weight.shape
    return weight.reshape(heads, outputs // heads // 2, 2, inputs).swapaxes(1, 2).reshape(outputs, inputs)


def _tokenizer(meta, path):
    kind, pre = (_value(meta, f"tokenizer.ggml.{key}", path) for key in ("model", "pre"))
    if (kind, pre) != ("gpt2", "smollm"):
        raise InputError(f"{path}: tokenizer {kind!r} with pre-tokenizer {pre!r}; only 'gpt2' with 'smollm' is known")
    words, kinds, merges = (_value(meta, f"tokenizer.ggml.{key}", path) for key in ("tokens", "token_type", "merges"))
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(pair.split(" ")) for pair in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [word for word, kind in zip(words, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    return tokenizer
