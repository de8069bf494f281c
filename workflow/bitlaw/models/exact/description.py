"""What exact arithmetic needs to know of a model, read from its config.json; and whether it covers that model."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from bitlaw import InputError
from bitlaw.models.exact.arithmetic import GELU, GELU_TANH, SILU

ACTIVATIONS = {
    "gelu": GELU,
    "gelu_new": GELU_TANH,
    "gelu_fast": GELU_TANH,
    "gelu_pytorch_tanh": GELU_TANH,
    "silu": SILU,
    "swish": SILU,
}
PER_HEAD, WHOLE = 1, 2  # q/k norm: of each head; of all heads together
LONGEST = 1 << 17  # positions: attention's sums stay below 2^53
# what transformers takes where config.json does not name a key
DEFAULTS = {
    "gpt_neox": {"rotary_pct": 0.25, "hidden_act": "gelu", "layer_norm_eps": 1e-5},
    "llama": {"rms_norm_eps": 1e-6},
    "mistral": {"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"rms_norm_eps": 1e-6, "num_key_value_heads": 32},
    "qwen3": {"rms_norm_eps": 1e-6, "num_key_value_heads": 32, "head_dim": 128},
    "olmo2": {"rms_norm_eps": 1e-5},
}
DEFAULT_BASE = 10000.0
FAMILIES = tuple(DEFAULTS)


class Description(NamedTuple):
    """Shape and arrangement of a decoder: docs/arithmetic.md, section 7."""

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    context: int
    rotary: int  # numbers of each head that turn
    base: float
    scaling: tuple | None  # see rotary.frequencies
    epsilon: float
    layer_norm: bool  # else RMS
    post_norm: bool
    parallel: bool
    activation: int
    gated: bool
    qk_norm: int  # 0, PER_HEAD or WHOLE
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    tied: bool


class _Refused(Exception):
    """One line: key, value and what was expected."""


def read_config(folder):
    """config.json of a checkpoint folder as a dict, or InputError."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable model configuration ({error}); give a checkpoint folder") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: no model configuration; expected an object of keys and values")
    return config


def covers(config):
    """None if exact arithmetic computes models of this config.json (a dict), else why not, in one line."""
    try:
        _describe(config)
    except _Refused as reason:
        return str(reason)
    return None


def describe(folder):
    """Description of the checkpoint in `folder`; InputError, naming file, key and value, if it is not covered."""
    try:
        return _describe(read_config(folder))
    except _Refused as reason:
        raise InputError(f"{Path(folder) / 'config.json'}: {reason}") from None


def _describe(config):
    family = config.get("model_type")
    if family not in FAMILIES:
        raise _Refused(f"model_type {family!r}: exact arithmetic knows {', '.join(FAMILIES)}")
    config = {key: value for key, value in (DEFAULTS[family] | config).items() if value is not None}
    neox = family == "gpt_neox"
    width, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    kv_heads = heads if neox else _whole(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise _Refused(f"num_key_value_heads {kv_heads}: expected a divisor of the {heads} query heads")
    if neox or "head_dim" not in config:
        if width % heads:
            raise _Refused(f"hidden_size {width}: expected a multiple of the {heads} heads")
        head_dim = width // heads
    else:
        head_dim = _whole(config, "head_dim")
    _plain_attention(config)
    base, scaling = _rope(config)
    rotary = int(head_dim * _rotary_share(config, neox))
    if rotary < 2 or rotary % 2:
        raise _Refused(f"{rotary} of {head_dim} numbers of a head would turn: expected an even number from 2")
    given = config.get("hidden_act", "silu")
    allowed = (GELU, GELU_TANH) if neox else (SILU,)
    if ACTIVATIONS.get(given) not in allowed:
        names = [name for name, kind in ACTIVATIONS.items() if kind in allowed]
        raise _Refused(f"hidden_act {given!r}: expected {' or '.join(names)} in {family}")
    epsilon = _number(config, "layer_norm_eps" if neox else "rms_norm_eps", 0.0)
    if not 1e-20 <= epsilon <= 1:
        raise _Refused(f"norm epsilon {epsilon}: expected 1e-20 to 1")
    attention_bias = _flag(config, "attention_bias", neox) if family not in ("mistral", "qwen2") else False
    found = Description(
        family=family,
        layers=_whole(config, "num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=_whole(config, "intermediate_size"),
        vocabulary=_whole(config, "vocab_size"),
        context=_whole(config, "max_position_embeddings", least=2),  # with one, no token has any context
        rotary=rotary,
        base=base,
        scaling=scaling,
        epsilon=epsilon,
        layer_norm=neox,
        post_norm=family == "olmo2",
        parallel=neox and _flag(config, "use_parallel_residual", True),
        activation=ACTIVATIONS[given],
        gated=not neox,
        qk_norm={"qwen3": PER_HEAD, "olmo2": WHOLE}.get(family, 0),
        qkv_bias=attention_bias or family == "qwen2",
        out_bias=attention_bias,
        mlp_bias=neox or (family == "llama" and _flag(config, "mlp_bias", False)),
        tied=_flag(config, "tie_word_embeddings", False),
    )
    limits = (
        ("hidden_size", width, 1 << 16),
        ("head_dim", head_dim, 1 << 12),
        ("num_attention_heads x head_dim", heads * head_dim, 1 << 16),
        ("intermediate_size", found.mlp, 1 << 24),
    )
    for key, value, limit in limits:
        if value >= limit:
            raise _Refused(f"{key} {value}: sums stay exact below {limit}")
    return found


def _plain_attention(config):
    """Refuse windows of attention that some layer would use."""
    window = config.get("sliding_window")
    used = window is not None and (config["model_type"] == "mistral" or config.get("use_sliding_window"))
    if used and window < _whole(config, "max_position_embeddings"):
        raise _Refused(f"sliding_window {window}: exact arithmetic attends to the whole context; expected null")
    for kind in config.get("layer_types", ()):
        if kind != "full_attention":
            raise _Refused(f"layer_types {kind!r}: exact arithmetic has full_attention only")


def _rope(config):
    """(base, scaling), from the keys of old and new config files."""
    new = config.get("rope_parameters", {})
    rope = config.get("rope_scaling") or new
    for value in (new, rope):
        if not isinstance(value, dict):
            raise _Refused(f"rope scaling {value!r}: expected an object")
    places = ((rope, "rope_theta"), (new, "rope_theta"), (config, "rotary_emb_base"), (config, "rope_theta"))
    base = next((_number(place, key, None) for place, key in places if key in place), DEFAULT_BASE)
    if not 1 < base < 1e30:
        raise _Refused(f"rotary base {base}: expected more than 1")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return base, None
    if kind == "linear":
        return base, (kind, _positive(rope, "factor"))
    if kind == "llama3":
        low, high = _positive(rope, "low_freq_factor"), _positive(rope, "high_freq_factor")
        if high <= low:
            raise _Refused(f"high_freq_factor {high}: expected more than low_freq_factor {low}")
        original = _positive(rope, "original_max_position_embeddings")
        return base, (kind, _positive(rope, "factor"), low, high, original)
    raise _Refused(f"rope scaling {kind!r}: exact arithmetic knows default, linear and llama3")


def _rotary_share(config, neox):
    """The share of a head's numbers that turns: all but in GPT-NeoX."""
    share = config.get("rope_parameters", {}).get("partial_rotary_factor")
    if share is None:
        share = config["rotary_pct"] if neox else config.get("partial_rotary_factor", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise _Refused(f"rotary share {share!r}: expected more than 0 and at most 1")
    if share != 1 and not neox:
        raise _Refused(f"partial_rotary_factor {share}: in {config['model_type']} exact arithmetic turns whole heads")
    return share


def _whole(config, key, default=None, least=1):
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _Refused(f"{key} {value!r}: expected a whole number from {least}")
    return value


def _number(config, key, default):
    value = config.get(key, default)
    if value is default:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Refused(f"{key} {value!r}: expected a number")
    return float(value)


def _positive(config, key):
    value = _number(config, key, None)
    if value is None or value <= 0:
        raise _Refused(f"rope scaling's {key} {value!r}: expected a positive number")
    return value


def _flag(config, key, default):
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise _Refused(f"{key} {value!r}: expected true or false")
    return value
