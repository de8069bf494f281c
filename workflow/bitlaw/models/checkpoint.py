"""Find, hash and load one checkpoint (model, step) at one precision; count its parameters.

A checkpoint is a folder in the layout of the Hugging Face Hub: config.json, *.safetensors, tokenizer.json.
"""

import json
import math
import struct
from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.hashing import digest

# older GPT-NeoX files carry these constants beside the weights; they are not parameters
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
EMBEDDINGS = ("embed_in", "embed_out", "embed_tokens", "lm_head", "wte", "wpe")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


def weight_files(folder):
    """The safetensors files of `folder`, in name order; InputError if there are none."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise InputError(
            f"{folder}: holds no *.safetensors; give a folder with config.json, weights and tokenizer.json"
        )
    return files


def read_config(folder):
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable model configuration ({error}); give a checkpoint folder") from None


def shapes(folder):
    """Name to shape of every parameter, from the headers alone."""
    found = {}
    for path in weight_files(folder):
        with open(path, "rb") as file:
            try:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            except (ValueError, struct.error, MemoryError, OverflowError):
                raise InputError(f"{path}: not a safetensors file; fetch it again") from None
        found |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    return {name: shape for name, shape in found.items() if not name.endswith(BUFFERS)}


def describe(folder):
    """weights_sha256, params_total and params_nonembedding (all but the token embeddings and the head)."""
    counts = {name: math.prod(shape) for name, shape in shapes(folder).items()}
    embedding = sum(n for name, n in counts.items() if any(f"{part}." in name for part in EMBEDDINGS))
    total = sum(counts.values())
    return {
        "weights_sha256": digest(*weight_files(folder)),
        "params_total": total,
        "params_nonembedding": total - embedding,
    }


def origin(folder):
    """{repository, revision, commit} of a checkpoint that came from the Hugging Face Hub; None of any other."""
    path = Path(folder) / "source.json"
    if not path.exists():
        return None
    source = json.loads(path.read_text())
    return {key: source.get(key) for key in ("repository", "revision", "commit")}


def compute(precision, device):
    """The dtype, as a precision, in which a model of `precision` computes what is not in eight bits.

    int8 computes the rest in fp16, as the published study did; on a processor in fp32, since products in fp16 take
    many times as long there.
    """
    return precision if precision != "int8" else "fp32" if device == "cpu" else "fp16"


def load(folder, precision="fp32", device="cpu"):
    """The model of `folder`: NeoX for GPT-NeoX checkpoints, else through transformers (see `transformers_lm`).

    In int8 its products have threshold 0 (see `llm_int8`). Raises InputError for what cannot be loaded so.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    config = read_config(folder)
    # torch takes seconds to import: only those who load weights pay
    import torch

    from bitlaw.models import gpt_neox

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[compute(precision, device)]
    if config.get("model_type") != gpt_neox.NeoX.architecture:
        if precision == "int8":
            raise InputError(f"{folder}: precision int8 is for GPT-NeoX models; choose fp32, bf16 or fp16 for this one")
        from bitlaw.models import transformers_lm

        return transformers_lm.Generic(folder, dtype, device)
    if config.get("hidden_act", "gelu") != "gelu":
        raise InputError(
            f"{folder}/config.json: hidden_act {config['hidden_act']!r} is not GPT-NeoX's; expected 'gelu'"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = {}
    for path in weight_files(folder):
        try:
            weights |= load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file ({error}); fetch it again") from None
    if "lm_head.weight" in weights:
        weights["embed_out.weight"] = weights.pop("lm_head.weight")
    try:
        model = gpt_neox.NeoX(config, weights, dtype, device)
    except KeyError as error:
        raise InputError(f"{folder}: the checkpoint lacks {error}; fetch it again") from None
    if precision == "int8":
        from bitlaw.models import llm_int8

        return llm_int8.quantised(model)
    return model
