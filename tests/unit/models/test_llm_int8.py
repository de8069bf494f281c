"""LLM.int8(): as bitsandbytes and transformers have it; no code at the study's threshold, a code at threshold 0."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from bitsandbytes.nn import Linear8bitLt
from safetensors.torch import load_file, save_file
from torch.nn.functional import layer_norm

from bitlaw import InputError
from bitlaw.compression import accounting, codec, scoring
from bitlaw.data import shards, sources, tokens
from bitlaw.models import checkpoint, llm_int8
from cell_process import CHUNKS, SIZE, compress
from repository import ROOT

LADDER = ROOT / "data/ladder/ladder-331k/step1200"
TEXT = (
    "The quick brown fox jumps over the lazy dog, and the [[history]] of the [[city]] begins in the 12th century. "
    "In 1986 the population was counted at 4,512, of whom most lived near the river; '''trade''' came later.\n"
) * 4


def planted(folder, out, channels, scale):
    """A copy of a checkpoint that computes the same function with `channels` of layer 0's attention input × `scale`.

    The layer norm makes them larger and the columns of the next matrix take it back.
    """
    shutil.copytree(folder, out)
    weights = {name: tensor.float() for name, tensor in load_file(out / "model.safetensors").items()}
    layer = "gpt_neox.layers.0"
    for part in ("weight", "bias"):
        weights[f"{layer}.input_layernorm.{part}"][channels] *= scale
    weights[f"{layer}.attention.query_key_value.weight"][:, channels] /= scale
    save_file(weights, out / "model.safetensors")
    return out


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    """(trained model's planted folder, ids of a text, a token): the token reaches 6 where the text stays below it."""
    model = checkpoint.load(LADDER)
    tokenizer, spelling, _ = tokens.open_tokenizer(LADDER / "tokenizer.json")
    ids = torch.from_numpy(tokens.encode(tokenizer, spelling, [TEXT])[0].astype(np.int64))[None]
    size = layer_norm(model.embedding, (model.width,), *model.blocks[0]["norm1"], model.eps).abs()
    of_text = size[ids[0]].amax(0)
    token, channel = divmod(int((size / of_text).argmax()), model.width)
    scale = 6 / (size[token, channel] * of_text[channel]).sqrt().item()
    return planted(LADDER, tmp_path_factory.mktemp("ladder") / "planted", [channel], scale), ids, token


def lengths(model, ids):
    """-log2 p of tokens 2 … of each row, float64 `[batch, length - 1]`."""
    logits = model.head(model.hidden(ids).flatten(0, 1)).view(*ids.shape, -1)[:, :-1]
    return -torch.log_softmax(logits.double(), -1).gather(2, ids[:, 1:, None])[..., 0] / np.log(2)


@pytest.mark.parametrize("threshold", [0.0, 6.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("large", [[], [3], [0, 17, 63]])
def test_products_are_those_of_bitsandbytes(threshold, dtype, large):
    generator = torch.Generator().manual_seed(1)
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((96, 64), (96,), (20, 64)))
    x[::7, large] = 9.0
    layer = Linear8bitLt(64, 96, has_fp16_weights=False, threshold=threshold).eval()
    layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
    layer = layer.to("cpu")
    values, scales, _ = llm_int8.int8_vectorwise_quant(weight.half())
    products = llm_int8.Products(threshold)
    found = products(x.to(dtype), llm_int8.Weight(0, "up", values, scales), bias.to(dtype))
    with torch.no_grad():
        assert torch.equal(found, layer(x.to(dtype)))
    assert found.dtype == dtype
    assert (found.double() - (x @ weight.t() + bias).double()).abs().max() < 2
    assert dict(products.columns) == ({(0, "up"): [len(large)]} if threshold else {})


@pytest.mark.parametrize("threshold", [0.0, 6.0])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_logits_are_those_of_transformers_with_bitsandbytes(ladder, precision, threshold):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder, ids, token = ladder
    ids = torch.cat((ids, torch.tensor([[token]])), 1)
    plain = checkpoint.load(folder, precision)
    reference = AutoModelForCausalLM.from_pretrained(
        folder, dtype=plain.dtype, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu"
    ).eval()
    eight = {name for name, module in reference.named_modules() if isinstance(module, Linear8bitLt)}
    assert len(eight) == 4 * plain.layers and all(".layers." in name for name in eight)
    for module in reference.modules():
        if isinstance(module, Linear8bitLt):
            assert module.state.threshold == llm_int8.THRESHOLD  # what the study left as it was
            module.state.threshold = threshold
    with torch.inference_mode():
        expected = reference(ids, use_cache=False).logits.float()
    model = llm_int8.quantised(plain, threshold)
    apart = (model.head(model.hidden(ids)[0]) - expected[0]).abs()
    effect = (plain.head(plain.hidden(ids)[0]) - expected[0]).abs()
    print(f"largest difference {apart.max():.4f}, mean {apart.mean():.5f}; of int8 itself {effect.mean():.5f}")
    assert apart[0].max() == 0  # attention to one key has nothing to sum
    # with more, another order of summation now and then rounds an activation to the next of its 255 steps
    assert apart.mean() <= (0.05 * effect.mean() if precision == "fp32" else 0.02) and effect.mean() > 0.01
    assert apart.max() <= effect.max()


def test_planting_changes_no_function(ladder):
    folder, ids, _ = ladder
    assert (lengths(checkpoint.load(folder), ids) - lengths(checkpoint.load(LADDER), ids)).abs().max() < 1e-4


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_a_later_token_changes_earlier_ones_at_the_studys_threshold_and_not_at_0(ladder, threshold):
    folder, ids, token = ladder
    model = llm_int8.quantised(checkpoint.load(folder), threshold)
    other = ids.clone()
    other[0, -1] = token
    apart = (lengths(model, other) - lengths(model, ids))[0, :-1].abs()
    assert apart.max() > 0.01 if threshold else apart.max() == 0


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_a_chunk_beside_it_changes_a_chunk_at_the_studys_threshold_and_not_at_0(ladder, threshold):
    folder, ids, token = ladder
    model = llm_int8.quantised(checkpoint.load(folder), threshold)
    beside = torch.full_like(ids, token)
    apart = (lengths(model, torch.cat((ids, beside)))[0] - lengths(model, ids)[0]).abs()
    assert apart.max() > 0.01 if threshold else apart.max() == 0


def test_only_threshold_0_decodes_by_steps(ladder):
    model = checkpoint.load(ladder[0], "int8")
    assert codec.invariant(model)
    assert not codec.invariant(llm_int8.at_threshold(model, llm_int8.THRESHOLD))


def test_thresholds_share_weights_and_outliers_are_counted_by_layer(ladder):
    folder, ids, token = ladder
    model = checkpoint.load(folder, "int8")
    study = llm_int8.at_threshold(model, 6.0)
    assert study.blocks is model.blocks
    study.hidden(ids)
    without = llm_int8.outlier_columns(study)
    ids = ids.clone()
    ids[0, -1] = token
    study.hidden(ids)
    both = llm_int8.outlier_columns(study)
    assert without["qkv"]["max"][0] == 0 and both["qkv"]["max"][0] == 1 and both["qkv"]["mean"][0] == 0.5
    assert (both["qkv"]["of"], both["down"]["of"]) == (model.width, 4 * model.width)
    assert not model.product.columns


def test_other_architectures_are_refused(gpt2_folder):
    with pytest.raises(InputError, match="precision int8 is for GPT-NeoX models; choose fp32, bf16 or fp16"):
        checkpoint.load(gpt2_folder, "int8")


def test_a_cell_makes_both_passes_and_adds_up(data, tmp_path, neox_folder):
    folder = planted(neox_folder, tmp_path / "model", [1, 5], 8.0)
    (tmp_path / "out").mkdir()
    ran, about = compress(data, folder, tmp_path / "out", precision="int8")
    assert ran.returncode == 0, ran.stderr
    assert (about["mode"], about["compute"]) == ("invariant", "fp32") and about["decode_check"]["passed"]
    rows = pq.read_table(tmp_path / "out/step1.parquet").to_pylist()
    ids, *_ = tokens.read(data / "tokens.npz")
    causal = checkpoint.load(folder, "int8")
    study = llm_int8.at_threshold(causal, 6.0)
    apart = []
    for row, chunk in zip(rows, ids, strict=True):
        (a,), (b,) = (scoring.score(model, [chunk[:1024]], 1) for model in (study, causal))
        assert row["bits_published"] == accounting.published_bits(a.lengths, "fp16")
        assert row["bits_published_causal"] == accounting.published_bits(b.lengths, "fp16")
        apart.append(np.abs(a.lengths - b.lengths)[1:])
    told = about["quantisation"]
    assert told["bits_apart_per_token"]["mean"] == pytest.approx(np.concatenate(apart).mean()) and about["dropped"] == 0
    assert told["outlier_columns"]["qkv"]["max"][0] >= 2
    term = sum(row["bits_published_causal"] - row["bits_published"] for row in rows) / (8 * CHUNKS * SIZE)
    assert about["audit_quantisation"] == pytest.approx(term) and term != 0
    total = sum(about[name] for name in accounting.AUDIT_TERMS)
    assert about["cr_published"] + total == pytest.approx(about["cr_lossless"], abs=1e-12)
    assert about["params_total"] == checkpoint.describe(neox_folder)["params_total"]


# --- Pythia-70M's configuration ---------------------------------------------------------------------------------

PYTHIA_70M = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}


@pytest.fixture(scope="module")
def pythia(tmp_path_factory):
    """(checkpoint of Pythia-70M's configuration with random weights, the embedded study, folder of fetched sources)."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tmp_path_factory.mktemp("pythia")
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    for name in ("neox-tokenizer", *(modality["source"] for modality in study["modalities"])):
        if not (ROOT / "data/raw" / name / "source.json").exists():
            sources.fetch(name, study["sources"][name], ROOT / "data/raw" / name)
    torch.manual_seed(0)
    config = GPTNeoXConfig(**PYTHIA_70M, vocab_size=50304, max_position_embeddings=2048, rotary_pct=0.25)
    GPTNeoXForCausalLM(config).half().save_pretrained(folder / "model")
    shutil.copy(ROOT / "data/raw/neox-tokenizer/20B_tokenizer.json", folder / "model/tokenizer.json")
    return folder / "model", study, folder


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["text", "image", "speech", "random"])
def test_a_cell_of_pythia_70ms_configuration_in_int8(pythia, tmp_path, modality):
    model, study, _ = pythia
    wanted = next(m for m in study["modalities"] if m["name"] == modality) | {"chunks": 2}
    shards.cut(ROOT / "data/raw" / wanted["source"], wanted, 2048, tmp_path / "shards")
    tokenizer, spelling, sha256 = tokens.open_tokenizer(model / "tokenizer.json")
    texts = [bytes(row & 127).decode("ascii") for row in shards.read(tmp_path / "shards")]
    ids = tokens.encode(tokenizer, spelling, texts)
    tokens.write(tmp_path / "tokens.npz", ids, spelling, sha256)
    (tmp_path / "out").mkdir()
    ran, about = compress(tmp_path, model, tmp_path / "out", precision="int8", verify=1, tokens_at_a_time=4096)
    assert ran.returncode == 0, ran.stderr
    assert (about["params_total"], about["params_nonembedding"]) == (70_426_624, 18_915_328)
    assert about["tokens"] == sum(map(len, ids)) and about["decode_check"]["passed"]
    assert (max(map(len, ids)) > 1024) == (modality != "text")
    terms = sum(about[name] for name in accounting.AUDIT_TERMS)
    assert about["cr_published"] + terms == pytest.approx(about["cr_lossless"], abs=1e-12)
    print(json.dumps(about, indent=1))
