"""GGUF files of tiny models, as llama.cpp's converter writes them."""

import json

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from bitlaw.data import vocabularies

CONTROL = "<|im_start|>"
LACKING = "\x04\x1d"
HEADS, KEY_HEADS = 4, 2
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def vocabulary_of(tokenizer):
    """(tokens, merges) of the tests' tokenizer without LACKING, with a control token."""
    model = json.loads(tokenizer.to_str())["model"]
    spelt = {b: c for c, b in vocabularies.byte_symbols().items()}
    gone = {spelt[ord(symbol)] for symbol in LACKING}
    words = [CONTROL] + [word for word in model["vocab"] if not gone & set(word)]
    return words, [" ".join(pair) for pair in model["merges"] if not gone & set("".join(pair))]


def llama(vocabulary, **more):
    """A tiny Llama model with so many tokens."""
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(vocabulary[0]),
        **SHAPE | more,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        rms_norm_eps=1e-5,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor += torch.randn_like(tensor) * (0.1 if "norm" in name else 0.2)
    return model


def qwen2(vocabulary, **more):
    torch.manual_seed(6)
    config = Qwen2Config(vocab_size=len(vocabulary[0]), **SHAPE, **more)
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor += torch.randn_like(tensor) * 0.1
    return model


def interleaved(weight, heads):
    """As llama.cpp stores q and k: the two halves of a head's outputs alternate."""
    first, second = weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 0, 2, 3)
    return np.stack([first, second], axis=2).reshape(weight.shape)


def write(folder, original, vocabulary, types=None, extra=(), drop=(), tensors=(), **changes):
    """A GGUF file of the model in `folder`, with the source.json that a fetched source has.

    types: of a tensor, the name of the type that it is quantised to, or that name and its blocks, uint8 `[outputs, n]`.
    """
    folder.mkdir(exist_ok=True)
    c = original.config
    architecture = changes.get("architecture", c.model_type)
    meta = {
        f"{architecture}.embedding_length": c.hidden_size,
        f"{architecture}.feed_forward_length": c.intermediate_size,
        f"{architecture}.block_count": c.num_hidden_layers,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KEY_HEADS,
        f"{architecture}.context_length": c.max_position_embeddings,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    writer = gguf.GGUFWriter(folder / "tiny.gguf", architecture)
    for key, value in {**meta, **dict(extra)}.items():
        if key not in drop:
            writer.add_uint32(key, value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", c.rms_norm_eps)
    writer.add_float32(f"{architecture}.rope.freq_base", c.rope_parameters["rope_theta"])
    if "add_bos" in changes:
        writer.add_add_bos_token(changes["add_bos"])
    words, more = vocabulary
    writer.add_token_list(words)
    if isinstance(more[0], str):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(changes.get("pre", "smollm"))
        writer.add_token_types([3] + [1] * (len(words) - 1))
        writer.add_token_merges(more)
    else:
        writer.add_tokenizer_model("llama")
        writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(words) - 259))
        writer.add_token_scores(more)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[c.model_type.upper()], c.num_hidden_layers)
    for name, tensor in original.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        name, _, end = name.rpartition(".")
        values, name = tensor.numpy(), names.get_name(name)
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(name.split(".")[-1]) if architecture == "llama" else None
        values = values if heads is None else interleaved(values, heads)
        if quantised := (types or {}).get(name):
            kind, blocks = (quantised, None) if isinstance(quantised, str) else quantised
            number = gguf.GGMLQuantizationType[kind]
            blocks = gguf.quantize(values, number) if blocks is None else blocks
            writer.add_tensor(f"{name}.{end}", blocks, raw_dtype=number)
        else:
            writer.add_tensor(f"{name}.{end}", values)
    for name in tensors:
        writer.add_tensor(name, np.zeros(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "source.json").write_text(json.dumps({"files": [{"path": "tiny.gguf"}]}))
    return folder
