"""Whether the sizes that config.json names can be, and are those of the tensors beside it."""

import re

from bitlaw import InputError
from bitlaw.models import contexts

# the names of one thing in one architecture or another
COUNTS = (
    *("hidden_size", "n_embd", "d_model", "intermediate_size", "ffn_dim", "head_dim", "vocab_size"),
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    *("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"),
)
CONTEXTS = (*contexts.KEYS, "n_ctx")


def check(path, config):
    """Raise InputError, naming the file `path`, the key and its value, where `config` (a dict) has an impossible size.

    What is no number is left to those who read it. A context of one position would give no token any context.
    """
    for keys, least in ((COUNTS, 1), (CONTEXTS, 2)):
        for key in keys:
            value = config.get(key)
            if isinstance(value, int | float) and (isinstance(value, bool | float) or value < least):
                raise InputError(f"{path}: {key} {value!r}: expected a whole number from {least}; fetch the file again")
    if isinstance(config.get("text_config"), dict):
        check(path, config["text_config"])


def of_neox(description):
    """Name to shape of the tensors of a GPT-NeoX model of this `exact.description.Description`."""
    width, inner, rows = description.width, description.mlp, description.vocabulary
    shapes = {"embed_in.weight": [rows, width], "embed_out.weight": [rows, width]}
    norms = ["final_layer_norm"]
    linears = {
        "attention.query_key_value": [3 * width, width],
        "attention.dense": [width, width],
        "mlp.dense_h_to_4h": [inner, width],
        "mlp.dense_4h_to_h": [width, inner],
    }
    for layer in range(description.layers):
        norms += [f"layers.{layer}.{name}" for name in ("input_layernorm", "post_attention_layernorm")]
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in linears.items()}
        shapes |= {f"layers.{layer}.{name}.bias": shape[:1] for name, shape in linears.items()}
    return shapes | {f"{norm}.{part}": [width] for norm in norms for part in ("weight", "bias")}


def compare(folder, expected, found):
    """Raise InputError for the first tensor that is lacking, too much, or of another shape; both name to shape."""
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise InputError(f"{folder}: the checkpoint lacks the tensor {name}; fetch it again")
        if name not in expected:
            raise InputError(f"{folder}: the tensor {name} has no place in the model that config.json describes")
        if list(found[name]) != list(expected[name]):
            raise InputError(
                f"{folder}: {name} has the shape {list(found[name])}; expected {list(expected[name])} by config.json"
            )


def layers_too_many(names, expected):
    """Those of the tensor `names` that stand for layers behind the last one of a model with the tensors `expected`.

    Other tensors without a place are no mistake: a picture's tower beside a language model, say.
    """
    kinds = {_kind(name) for name in expected}
    return sorted(name for name in names if _kind(name) in kinds)


def _kind(name):
    """The tensor's name without the number of its layer."""
    return re.sub(r"\.\d+\.", ".*.", name)
