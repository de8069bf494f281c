"""What exact arithmetic needs to know of a model, read from its config.json; and whether it covers that model."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bitlaw import InputError
from bitlaw.models.exact.families import FAMILIES

LONGEST = 1 << 17  # positions: attention's sums stay below 2^53
DEFAULT_BASE = 10000.0
MULTIPLIERS = 2.0**-12, 2.0**12  # the least and the largest


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
    turned: tuple  # of each layer, whether they do
    base: float
    scaling: tuple | None  # see rotary.frequencies
    epsilon: float
    layer_norm: bool  # else RMS
    unit_gain: bool  # gains are stored less one
    post_norm: bool
    parallel: bool
    activation: int
    gated: bool
    qk_norm: int  # 0, PER_HEAD or WHOLE
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    tied: bool
    embedding_scale: np.float32  # of a token's numbers
    score_scale: np.float32  # of attention's scores
    residual_scale: np.float32  # of what a layer adds
    head_scale: np.float32  # of the logits


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


def covers(config, context=None):
    """None if exact arithmetic computes models of this config.json (a dict), else why not, in one line.

    context: how many positions a window has, where they are fewer than config.json names.
    """
    try:
        _describe(config, context)
    except _Refused as reason:
        return str(reason)
    return None


def describe(folder, context=None):
    """Description of the checkpoint in `folder`; InputError, naming file, key and value, if it is not covered."""
    try:
        return _describe(read_config(folder), context)
    except _Refused as reason:
        raise InputError(f"{Path(folder) / 'config.json'}: {reason}") from None


def _describe(config, context):
    name = config.get("model_type")
    if name not in [*FAMILIES]:
        raise _Refused(f"model_type {name!r}: exact arithmetic knows {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    config = {k: v for k, v in (family.defaults | config).items() if v is not None and k not in family.ignored}
    for key in family.refused:
        if _flag(config, key):
            raise _Refused(f"{key} true: exact arithmetic knows {name} without it only")
    width, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    kv_heads = _whole(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise _Refused(f"num_key_value_heads {kv_heads}: expected a divisor of the {heads} query heads")
    if "head_dim" not in config and width % heads:
        raise _Refused(f"hidden_size {width}: expected a multiple of the {heads} heads")
    head_dim = _whole(config, "head_dim", width // heads)
    layers = _whole(config, "num_hidden_layers")
    positions = _whole(config, "max_position_embeddings", least=2)  # with one, no token has any context
    _plain_attention(config, family, min(positions, context or positions))
    base, scaling = _rope(config)
    rotary = int(head_dim * _rotary_share(config, family))
    if rotary < 2 or rotary % 2:
        raise _Refused(f"{rotary} of {head_dim} numbers of a head would turn: expected an even number from 2")
    given = config.get("hidden_act", "silu")
    if given not in [*family.activations]:
        raise _Refused(f"hidden_act {given!r}: expected {' or '.join(family.activations)} in {name}")
    epsilon = _number(config, family.epsilon, 0.0)
    if not 1e-20 <= epsilon <= 1:
        raise _Refused(f"norm epsilon {epsilon}: expected 1e-20 to 1")
    found = Description(
        family=name,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=_whole(config, "intermediate_size"),
        vocabulary=_whole(config, "vocab_size"),
        context=positions,
        rotary=rotary,
        turned=_turned(config, family, layers),
        base=base,
        scaling=scaling,
        epsilon=epsilon,
        layer_norm=family.layer_norm,
        unit_gain=family.unit_gain,
        post_norm=family.post_norm,
        parallel=_flag(config, family.parallel),
        activation=family.activations[given],
        gated=family.gated,
        qk_norm=family.qk_norm,
        qkv_bias=_flag(config, family.qkv_bias),
        out_bias=_flag(config, family.out_bias),
        mlp_bias=_flag(config, family.mlp_bias),
        tied=_flag(config, "tie_word_embeddings"),
        **_scales(config, family, width, head_dim),
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


def _scales(config, family, width, head_dim):
    """The numbers that products are scaled by, float32: see Description."""
    if not family.scaled:
        embedding = math.sqrt(width) if family.root_width else 1.0
        found = {"embedding": embedding, "score": 1.0 / math.sqrt(head_dim), "residual": 1.0, "head": 1.0}
    else:
        found = {part: _multiplier(config, f"{part}_multiplier") for part in ("embedding", "residual")}
        found["score"] = _multiplier(config, "attention_multiplier")
        found["head"] = 1.0 / _multiplier(config, "logits_scaling")
    return {f"{part}_scale": np.float32(value) for part, value in found.items()}


def _plain_attention(config, family, context):
    """Refuse windows of attention that some layer would use within `context` positions."""
    window = config.get("sliding_window")
    used = window is not None and (family.windowed or config.get("use_sliding_window"))
    if used and _whole(config, "sliding_window") < context:
        raise _Refused(
            f"sliding_window {window}: exact arithmetic attends to all {context} positions; give the model's entry "
            f"`context: {window}` or less"
        )
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


def _rotary_share(config, family):
    """The share of a head's numbers that turns: all in most families."""
    key = family.share or "partial_rotary_factor"
    share = config.get("rope_parameters", {}).get("partial_rotary_factor")
    share = config.get(key, 1.0) if share is None else share
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise _Refused(f"rotary share {share!r}: expected more than 0 and at most 1")
    if share != 1 and not family.share:
        raise _Refused(f"partial_rotary_factor {share}: in {config['model_type']} exact arithmetic turns whole heads")
    return share


def _turned(config, family, layers):
    """Of each layer, whether its queries and keys turn: SmolLM3 leaves every fourth as it is, or those it names."""
    if not family.unturned:
        return (True,) * layers
    every = _whole(config, "no_rope_layer_interval")
    given = config.get("no_rope_layers", [int((layer + 1) % every != 0) for layer in range(layers)])
    if not isinstance(given, list) or len(given) < layers or any(flag not in (0, 1) for flag in given):
        raise _Refused(f"no_rope_layers {given!r}: expected 1 or 0 for each of {layers} layers")
    return tuple(map(bool, given[:layers]))


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


def _multiplier(config, key):
    value, (least, largest) = _number(config, key, None), MULTIPLIERS
    if not least <= value <= largest:
        raise _Refused(f"{key} {value}: expected {least} to {largest:.0f}")
    return value


def _flag(config, key):
    """The flag of a key of config.json, false where it is absent; or the value itself that stands for a key."""
    value = config.get(key, False) if isinstance(key, str) else key
    if not isinstance(value, bool):
        raise _Refused(f"{key} {value!r}: expected true or false")
    return value
