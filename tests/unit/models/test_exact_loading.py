"""Which models exact arithmetic covers, how it reads them, how close it is to transformers, and what it refuses."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny_decoders
from bitlaw import InputError
from bitlaw.models.exact.description import covers
from bitlaw.models.exact.model import Model


def logits(model, ids):
    return model.head(model.hidden(ids), 0, len(ids)).copy()


IDS = np.random.default_rng(1).integers(0, 101, 200)

CLOSE = {
    **{family: (family, {}) for family in tiny_decoders.FAMILIES},
    "sequential, tanh": ("gpt_neox", {"use_parallel_residual": False, "hidden_act": "gelu_new"}),
    "new rope keys": (
        "gpt_neox",
        {
            "rotary_pct": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75},
        },
    ),
    "biases, tied": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "linear": ("qwen2", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama3": (
        "llama",
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "biased olmo2": ("olmo2", {"attention_bias": True}),
    "stablelm as it comes": ("stablelm", {"partial_rotary_factor": None, "use_qkv_bias": None, "hidden_size": 64}),
    "part of phi3": ("phi3", {"partial_rotary_factor": 0.75, "hidden_size": 64}),
    "biased granite, tied": ("granite", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "plain granite": ("granite", {**dict.fromkeys(tiny_decoders.MULTIPLIERS), "attention_multiplier": 2**-7}),
    "smollm3 by layers": ("smollm3", {"no_rope_layers": [0, 1], "mlp_bias": True}),
    "gemma with gelu": ("gemma", {"hidden_act": "gelu", "attention_bias": True}),
}


@pytest.mark.parametrize("name", CLOSE)
def test_logits_are_close_to_those_of_transformers(tmp_path, name):
    import torch
    from transformers import AutoModelForCausalLM

    family, changes = CLOSE[name]
    config = tiny_decoders.config_of(family, **changes)
    weights = tiny_decoders.weights_of(config, seed=8)
    for values in weights.values():
        values *= np.float32(0.5 if values.ndim == 2 else 1)  # so that differences do not grow from layer to layer
    folder = tiny_decoders.write(tmp_path, config, weights)
    ours = logits(Model(folder), IDS)
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        theirs = reference(torch.from_numpy(IDS)[None]).logits[0].numpy()
        double = reference.double()(torch.from_numpy(IDS)[None]).logits[0].numpy()
    spread = double.std()
    print(name, "largest difference / standard deviation of logits:", np.abs(ours - double).max() / spread)
    assert spread > 0.5
    assert np.abs(ours - theirs).max() < 6e-3 * spread


# --- files ------------------------------------------------------------------------------------------------------------


def to_bfloat16(values):
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_bfloat16(path, tensors):
    """safetensors' numpy writer does not know bfloat16."""
    header, offset, body = {}, 0, b""
    for name, values in tensors.items():
        data = to_bfloat16(values).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [offset, offset + len(data)]}
        offset, body = offset + len(data), body + data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_types_of_tensors(tmp_path):
    config = tiny_decoders.config_of("llama")
    weights = tiny_decoders.weights_of(config)
    half = {name: values.astype(np.float16) for name, values in weights.items()}
    tiny_decoders.write(tmp_path / "fp16", config, half)
    tiny_decoders.write(tmp_path / "same", config, {name: values.astype(np.float32) for name, values in half.items()})
    assert np.array_equal(logits(Model(tmp_path / "fp16"), IDS), logits(Model(tmp_path / "same"), IDS))

    rounded = {n: (to_bfloat16(v).astype(np.uint32) << 16).view(np.float32) for n, v in weights.items()}
    tiny_decoders.write(tmp_path / "bf16", config, {})
    write_bfloat16(tmp_path / "bf16/model.safetensors", weights)
    tiny_decoders.write(tmp_path / "wide", config, rounded)
    assert np.array_equal(logits(Model(tmp_path / "bf16"), IDS), logits(Model(tmp_path / "wide"), IDS))


def test_shards_old_buffers_and_both_names_of_the_head(tmp_path):
    config = tiny_decoders.config_of("gpt_neox")
    weights = tiny_decoders.weights_of(config)
    expected = logits(Model(tiny_decoders.write(tmp_path / "one", config, weights)), IDS)
    weights["lm_head.weight"] = weights.pop("embed_out.weight")
    for i in range(2):
        weights[f"gpt_neox.layers.{i}.attention.bias"] = np.ones((1, 1, 9, 9), dtype=np.bool_)
        weights[f"gpt_neox.layers.{i}.attention.masked_bias"] = np.array(-1e9, dtype=np.float32)
        weights[f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq"] = np.ones(2, dtype=np.float32)
    folder, names = tiny_decoders.write(tmp_path / "two", config, {}), sorted(weights)
    (folder / "model.safetensors").unlink()
    save_file({name: weights[name] for name in names[::2]}, folder / "model-00001-of-00002.safetensors")
    save_file({name: weights[name] for name in names[1::2]}, folder / "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    assert np.array_equal(logits(Model(folder), IDS), expected)


def test_no_torch_is_needed(tmp_path):
    import subprocess
    import sys

    folder = tiny_decoders.checkpoint(tmp_path, "qwen3")
    code = (
        "import sys; from bitlaw.models.exact.model import Model; m = Model(sys.argv[1]); "
        "m.head(m.hidden([1, 2, 3]), 0, 3); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], env=_environment()).returncode == 0


def _environment():
    import os
    import sys

    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family, changes, words",
    [
        ("gpt2", {}, "model_type 'gpt2'"),
        ("llama", {"model_type": ["llama"]}, "model_type ['llama']"),
        ("llama", {"hidden_act": ["silu"]}, "hidden_act ['silu']"),
        ("llama", {"num_attention_heads": 0}, "num_attention_heads 0"),
        ("llama", {"num_attention_heads": None}, "num_attention_heads None"),
        ("llama", {"num_attention_heads": 5}, "num_key_value_heads 2: expected a divisor of the 5"),
        ("gpt_neox", {"num_attention_heads": 3}, "hidden_size 44: expected a multiple of the 3"),
        ("llama", {"hidden_size": "48"}, "hidden_size '48'"),
        ("llama", {"hidden_size": True}, "hidden_size True"),
        ("llama", {"num_hidden_layers": -1}, "num_hidden_layers -1"),
        ("llama", {"head_dim": 7}, "7 of 7 numbers of a head would turn"),
        ("llama", {"hidden_act": "relu"}, "hidden_act 'relu': expected silu or swish in llama"),
        ("gpt_neox", {"hidden_act": "silu"}, "hidden_act 'silu'"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope scaling 'yarn'"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "factor None"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": -2}}, "factor -2"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor None"),
        ("llama", {"rope_scaling": "linear"}, "rope scaling 'linear'"),
        ("llama", {"rope_theta": 0.5}, "rotary base 0.5"),
        ("llama", {"rope_theta": float("nan")}, "rope_theta nan"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ("gpt_neox", {"rotary_pct": 0.0}, "rotary share 0.0"),
        ("mistral", {"sliding_window": 256}, "sliding_window 256"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 100}, "sliding_window 100"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types 'sliding_attention'"),
        (
            "phi3",
            {"sliding_window": 300},
            "sliding_window 300: exact arithmetic attends to all 512 positions; give the",
        ),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 6}}, "rope scaling 'longrope'"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm true: exact arithmetic knows stablelm without it only"),
        ("stablelm", {"use_parallel_residual": True}, "use_parallel_residual true"),
        ("stablelm", {"use_qkv_bias": "yes"}, "use_qkv_bias 'yes': expected true or false"),
        ("stablelm", {"partial_rotary_factor": 1.5}, "rotary share 1.5"),
        ("granite", {"embedding_multiplier": 0}, "embedding_multiplier 0.0: expected 0.000244140625 to 4096"),
        ("granite", {"residual_multiplier": -0.22}, "residual_multiplier -0.22"),
        ("granite", {"attention_multiplier": "1"}, "attention_multiplier '1': expected a number"),
        ("granite", {"logits_scaling": 1e9}, "logits_scaling 1000000000.0"),
        ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers [1]: expected 1 or 0 for each of 2 layers"),
        ("smollm3", {"no_rope_layers": [1, 2]}, "no_rope_layers [1, 2]"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval 0"),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 9}, "sliding_window 9"),
        ("gemma", {"hidden_act": "silu"}, "hidden_act 'silu': expected gelu or gelu_new"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention true"),
        ("llama", {"rms_norm_eps": 0}, "norm epsilon 0"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps 'small'"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings 'no'"),
        ("llama", {"hidden_size": 1 << 17}, "hidden_size 131072"),
    ],
)
def test_configurations_that_are_refused(tmp_path, family, changes, words):
    config = tiny_decoders.config_of("llama" if family == "gpt2" else family) | {"model_type": family}
    config = {key: value for key, value in (config | changes).items() if value is not None or key == "sliding_window"}
    assert words in covers(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as refusal:
        Model(tmp_path)
    line = str(refusal.value)
    assert words in line and str(tmp_path / "config.json") in line and "\n" not in line


def test_configurations_that_are_covered():
    for family in tiny_decoders.FAMILIES:
        assert covers(tiny_decoders.config_of(family)) is None
    assert covers(tiny_decoders.config_of("mistral", sliding_window=512)) is None
    assert covers(tiny_decoders.config_of("qwen2", use_sliding_window=False, sliding_window=16)) is None
    # a mistral configuration that does not name its window has one of 4096
    config = tiny_decoders.config_of("mistral", max_position_embeddings=8192)
    del config["sliding_window"]
    assert "sliding_window 4096" in covers(config)


@pytest.mark.parametrize("family", ["mistral", "phi3"])
def test_a_context_within_the_window_needs_no_window(tmp_path, family):
    config = tiny_decoders.config_of(family)
    weights = tiny_decoders.weights_of(config)
    expected = logits(Model(tiny_decoders.write(tmp_path / "whole", config, weights)), IDS[:90])
    folder = tiny_decoders.write(tmp_path / "window", config | {"sliding_window": 90}, weights)
    assert covers(config | {"sliding_window": 90}, 91) and covers(config | {"sliding_window": 90}, 90) is None
    model = Model(folder, 90)
    assert model.context == 90 and np.array_equal(logits(model, IDS[:90]), expected)
    with pytest.raises(InputError, match="give the model's entry `context: 90` or less"):
        Model(folder, 91)


@pytest.mark.parametrize("content", ["", "[1]", "{", None])
def test_no_readable_configuration(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        Model(tmp_path)


def broken(change):
    def apply(weights):
        change(weights)
        return weights

    return apply


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w[NAME].__setitem__((3, 4), np.nan), "up_proj.weight holds nan"),
        (lambda w: w[NAME].__setitem__((3, 4), -np.inf), "up_proj.weight holds -inf"),
        (lambda w: w[NAME].__setitem__((3, 4), 2e36), "up_proj.weight holds 1.9999"),
        (lambda w: w["model.norm.weight"].__setitem__(3, np.nan), "model.norm.weight holds nan"),
        (lambda w: w["lm_head.weight"].__setitem__((3, 4), np.inf), "lm_head.weight holds inf"),
        (lambda w: w.pop(NAME), f"lacks the tensor {NAME}"),
        (lambda w: w.pop("lm_head.weight"), "lacks the tensor"),
        (lambda w: w.update({NAME: w[NAME][:-1].copy()}), "up_proj.weight has the shape [70, 48]; expected [71, 48]"),
        (lambda w: w.update({NAME: w[NAME].astype(np.int32)}), "up_proj.weight is of type I32"),
        (lambda w: w.update({NAME.replace("weight", "bias"): np.ones(71, np.float32)}), "up_proj.bias has no place"),
    ],
)
def test_weights_that_are_refused(tmp_path, change, words):
    config = tiny_decoders.config_of("llama")
    weights = tiny_decoders.weights_of(config)
    change(weights)
    tiny_decoders.write(tmp_path, config, weights)
    with pytest.raises(InputError) as refusal:
        Model(tmp_path)
    assert words in str(refusal.value) and str(tmp_path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_damaged_files_are_refused(tmp_path):
    config = tiny_decoders.config_of("llama")
    path = tiny_decoders.write(tmp_path, config, tiny_decoders.weights_of(config)) / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", b"1234", b"\xff" * 64, whole[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.safetensors"):
            Model(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="holds no"):
        Model(tmp_path)
    assert load_file  # the file was written by the same library


def test_tokens_and_positions_that_do_not_exist(tmp_path):
    model = Model(tiny_decoders.checkpoint(tmp_path, "llama"), positions=64)
    assert model.context == 64
    for ids in ([101], [-1]):
        with pytest.raises(InputError, match="token"):
            model.hidden(ids)
    with pytest.raises(InputError, match="position 64: expected 0 to 63"):
        model.hidden(np.zeros(65, dtype=int))
    with pytest.raises(InputError, match="position"):
        model.hidden([1], model.new_cache(1, 16), past=16)
    with pytest.raises(InputError, match="slot 1"):
        model.forward(model.new_cache(1, 16), [1], [0], [5])
    with pytest.raises(InputError, match="expected one for each"):
        model.forward(model.new_cache(1, 16), [0, 0], [0], [5])
    assert model.head(model.hidden([]), 0, 0).shape == (0, 101)


def test_a_process_that_flushes_subnormal_numbers_is_refused(neox_folder):
    import torch

    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush them")
    try:
        with pytest.raises(InputError, match="flushes subnormal numbers to zero"):
            Model(neox_folder)
    finally:
        torch.set_flush_denormal(False)
