"""Models by way of transformers: which code as they should, and which are refused when they are loaded."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bitlaw import InputError
from bitlaw.compression import scoring
from bitlaw.models import checkpoint
from tiny_models import random_checkpoint

V = {"vocab_size": 300}
SIZES = V | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
CONTEXT = {"max_position_embeddings": 64}
RIGHT = {
    "gpt2": transformers.GPT2Config(**V, n_positions=64, n_embd=32, n_layer=2, n_head=2),
    "llama": transformers.LlamaConfig(**SIZES, **CONTEXT, num_key_value_heads=2),
    "mistral": transformers.MistralConfig(**SIZES, **CONTEXT, num_key_value_heads=2, sliding_window=16),
    "bert as a decoder": transformers.BertConfig(**SIZES, **CONTEXT, is_decoder=True),
}
WRONG = {
    "rwkv": (transformers.RwkvConfig(**V, context_length=64, hidden_size=32, num_hidden_layers=2), "single steps"),
    "openai-gpt": (transformers.OpenAIGPTConfig(**V, n_positions=64, n_embd=32, n_layer=2, n_head=2), "single steps"),
    "mamba": (
        transformers.MambaConfig(**V, **CONTEXT, hidden_size=32, num_hidden_layers=2, state_size=8),
        "single steps",
    ),
    "bert": (transformers.BertConfig(**SIZES, **CONTEXT, is_decoder=False), "a later token changes"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_causal_model_with_a_cache_is_loaded(name, tmp_path):
    folder = random_checkpoint(RIGHT[name], tmp_path)
    model = checkpoint.load(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(40)[None] * 7 % 300
    with torch.inference_mode():
        expected = reference(ids, use_cache=False).logits
    assert torch.equal(model.head(model.hidden(ids)), expected) and expected.std() > 0.1


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_would_code_something_else_is_refused_in_one_line(name, tmp_path):
    config, what = WRONG[name]
    folder = random_checkpoint(config, tmp_path)
    with pytest.raises(InputError, match=what) as refusal:
        checkpoint.load(folder)
    line = str(refusal.value)
    assert line.startswith(f"{folder}: ") and "\n" not in line and config.model_type in line
    assert "choose" in line or "set" in line


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_pass_where_fp32_does(precision, tmp_path):
    folder = random_checkpoint(RIGHT["llama"], tmp_path, scale=4)
    assert checkpoint.load(folder, precision).vocabulary == 300


def test_weights_that_a_file_lacks_are_not_made_up(tmp_path):
    folder = random_checkpoint(RIGHT["llama"], tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        checkpoint.load(folder)


def test_logits_that_are_no_numbers_are_refused(tmp_path):
    folder = random_checkpoint(RIGHT["llama"], tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= torch.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not finite"):
        checkpoint.load(folder)


FAMILIES = RIGHT | {
    "falcon": transformers.FalconConfig(**V, hidden_size=32, num_hidden_layers=1, num_attention_heads=2),
    "bloom": transformers.BloomConfig(**V, hidden_size=32, n_layer=1, n_head=2),
    "opt": transformers.OPTConfig(**SIZES | {"num_hidden_layers": 1}, ffn_dim=32, word_embed_proj_dim=32),
    "ctrl": transformers.CTRLConfig(**V, n_positions=64, n_embd=32, n_layer=1, n_head=2, dff=32),
    "biogpt": transformers.BioGptConfig(**SIZES | {"num_hidden_layers": 1}),
    "rwkv": WRONG["rwkv"][0],
    "openai-gpt": WRONG["openai-gpt"][0],
    "mamba": WRONG["mamba"][0],
    "untied": transformers.LlamaConfig(**SIZES, **CONTEXT, tie_word_embeddings=False),
    "tied": transformers.LlamaConfig(**SIZES, **CONTEXT, tie_word_embeddings=True),
}


@pytest.mark.parametrize(("name", "config"), FAMILIES.items(), ids=FAMILIES)
def test_parameters_are_those_that_transformers_has(name, config, tmp_path):
    about = checkpoint.describe(random_checkpoint(config, tmp_path))
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    embeddings = [module for module in reference.modules() if isinstance(module, torch.nn.Embedding)]
    embeddings.append(reference.get_output_embeddings())
    counted = {id(p): p.numel() for module in embeddings for p in module.parameters()}  # tied ones once
    assert about["params_total"] == sum(p.numel() for p in reference.parameters())
    assert about["params_total"] - about["params_nonembedding"] == sum(counted.values()) > 0


# --- GPT-NeoX checkpoints that the own pass does not cover ---------------------------------------------------------

NEOX = SIZES | CONTEXT | {"rotary_pct": 0.5}
OTHER_NEOX = {
    "rope_scaling linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "rope_scaling yarn": {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "hidden_act": {"hidden_act": "gelu_fast"},
    "tie_word_embeddings": {"tie_word_embeddings": True},
    "attention_bias": {"attention_bias": False},
    "odd rotary width": {"rotary_pct": 0.9},  # 7 of 8
}


def neox(folder, scale=6, **settings):
    return random_checkpoint(transformers.GPTNeoXConfig(**NEOX | settings), folder, scale=scale)


def logits(model, ids):
    return model.head(model.hidden(ids).flatten(0, 1)).view(*ids.shape, -1)


@pytest.mark.parametrize("settings", OTHER_NEOX.values(), ids=OTHER_NEOX)
def test_a_neox_that_the_own_pass_does_not_cover_goes_through_transformers(settings, tmp_path):
    folder = neox(tmp_path, **settings)
    model = checkpoint.load(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(60)[None] * 7 % 300
    with torch.inference_mode():
        expected = reference(ids, use_cache=False).logits
    assert expected.std() > 0.1
    assert (logits(model, ids) - expected).abs().max() <= 1e-4
    (scores,) = scoring.score(model, [ids[0].numpy()], 1000)
    assert len(scores.lengths) == 60
    with pytest.raises(InputError, match=r"precision int8 .*config\.json"):
        checkpoint.load(folder, "int8")


def test_settings_that_a_neox_does_not_name_are_those_of_transformers(tmp_path):
    folder = neox(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "rope_scaling", "rotary_pct", "rotary_emb_base", "use_parallel_residual"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    model = checkpoint.load(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(60)[None] * 7 % 300
    with torch.inference_mode():
        expected = reference(ids, use_cache=False).logits
    assert (logits(model, ids) - expected).abs().max() <= 1e-4
    assert model.rotary == 2 and type(model).__name__ == "NeoX"


def test_a_neox_without_its_biases_is_refused(tmp_path):
    folder = neox(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["gpt_neox.layers.0.attention.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks the tensor layers\.0\.attention\.dense\.bias"):
        checkpoint.load(folder)


# --- which files are the weights -----------------------------------------------------------------------------------


def split(folder):
    """The weights of `folder` in two shards with an index; the single file goes."""
    weights = load_file(folder / "model.safetensors")
    names, where = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name].contiguous().clone() for name in part}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return weights


def test_a_consolidated_file_beside_shards_is_not_counted(tmp_path):
    folder = random_checkpoint(RIGHT["llama"], tmp_path)
    one = checkpoint.describe(folder)
    weights = split(folder)
    shards = checkpoint.describe(folder)
    assert {**one, "weights_sha256": 0} == {**shards, "weights_sha256": 0}
    save_file({f"renamed.{name}": tensor for name, tensor in weights.items()}, folder / "consolidated.safetensors")
    assert checkpoint.describe(folder) == shards
    checkpoint.load(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match=r"two sets of weights \(consolidated\.safetensors, model-\*-of-00002\.saf"):
        checkpoint.describe(folder)


def test_shards_that_are_missing_are_named(tmp_path):
    folder = random_checkpoint(RIGHT["llama"], tmp_path)
    split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"names model-00002-of-00002\.safetensors, which is not there"):
        checkpoint.describe(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match=r"model-\*-of-00002\.safetensors: 1 of 2 files"):
        checkpoint.describe(folder)
