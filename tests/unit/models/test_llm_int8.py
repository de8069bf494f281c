"""LLM.int8(): as bitsandbytes and transformers have it; no code at the study's threshold, a code at threshold 0."""

import copy
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
from bitlaw.compression import accounting, scoring
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


def quantised(model, threshold):
    """`model` (gpt_neox.NeoX) with the matrices of its blocks in eight bits, and products at a threshold."""
    eight = copy.copy(model)
    eight.product, eight.blocks = llm_int8.by_rows, []
    for layer, block in enumerate(model.blocks):
        made = {name: (llm_int8.quantise(layer, name, block[name][0]), block[name][1]) for name in llm_int8.MATRICES}
        eight.blocks.append(block | made)
    return llm_int8.WithOutliers(eight, threshold) if threshold else eight


def lengths(model, ids):
    """-log2 p of tokens 2 … of each row, float64 `[batch, length - 1]`."""
    logits = model.head(model.hidden(ids).flatten(0, 1)).view(*ids.shape, -1)[:, :-1]
    return -torch.log_softmax(logits.double(), -1).gather(2, ids[:, 1:, None])[..., 0] / np.log(2)


def linear_layer(threshold):
    """(bitsandbytes' own layer of 64 to 96, its Weight and bias in float32)."""
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(shape, generator=generator) for shape in ((96, 64), (96,)))
    layer = Linear8bitLt(64, 96, has_fp16_weights=False, threshold=threshold).eval()
    layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
    return layer.to("cpu"), llm_int8.quantise(0, "up", weight), bias


def inputs(dtype, sequences, large):
    """`[sequences, 20, 64]` of normal numbers, every seventh token 9 in the columns of `large`, a list a sequence."""
    x = torch.randn((sequences, 20, 64), generator=torch.Generator().manual_seed(2)).to(dtype)
    for own, columns in zip(x, large, strict=True):
        own[::7, columns] = 9.0
    return x


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("large", [[], [3], [0, 17, 63], list(range(64))])
def test_products_at_the_studys_threshold_are_those_of_bitsandbytes_for_each_sequence(dtype, large):
    layer, weight, bias = linear_layer(6.0)
    columns = [large, [5, 17], []]
    x = inputs(dtype, 3, columns)
    products = llm_int8.Products(6.0)
    found = products(x, weight, bias.to(dtype))
    with torch.no_grad():
        expected = torch.stack([layer(own) for own in x])
    assert found.dtype == dtype and found.shape == (3, 20, 96)
    # the sums of the outliers are in floating point: beside other columns, or as many as 64, their order may be another
    assert torch.equal(found, expected) or (found - expected).abs().max() <= 2e-3 * expected.abs().max()
    assert torch.equal(found[2], expected[2])
    assert not products.lacks_room()
    assert {key: torch.cat(of).tolist() for key, of in products.columns.items()} == {(0, "up"): [*map(len, columns)]}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("large", [[], [3], [0, 17, 63]])
@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_products_of_one_sequence_are_those_of_bitsandbytes_to_the_last_bit(threshold, dtype, large):
    layer, weight, bias = linear_layer(threshold)
    plain = weight.values * weight.scales[:, None].double() / 127
    x = inputs(dtype, 1, [large])
    found = (llm_int8.Products(threshold) if threshold else llm_int8.by_rows)(x, weight, bias.to(dtype))
    with torch.no_grad():
        assert torch.equal(found[0], layer(x[0]))
    assert (found.double() - (x.double() @ plain.t() + bias)).abs().max() < 2


def test_outliers_that_find_no_room_are_met_again_with_enough(monkeypatch):
    monkeypatch.setattr(llm_int8, "ROOM", 2)
    layer, weight, bias = linear_layer(6.0)
    x = inputs(torch.float32, 1, [[0, 3, 17, 40, 63]])
    products = llm_int8.Products(6.0)
    with torch.no_grad():
        expected = layer(x[0])
    apart = (products(x, weight, bias)[0] - expected).abs().max()
    assert apart > 1 and products.lacks_room() and products.room["up"] == 8 and not products.columns
    assert torch.equal(products(x, weight, bias)[0], expected) and not products.lacks_room()
    assert products.columns[0, "up"][0].tolist() == [5]


def test_a_pass_that_lacks_room_is_made_again(ladder, monkeypatch):
    folder, ids, _ = ladder
    model = checkpoint.load(folder, "int8")
    expected = llm_int8.WithOutliers(model, 1.0)
    expected.product.room = dict.fromkeys(llm_int8.MATRICES, 1024)
    states = expected.hidden(ids)
    small = llm_int8.WithOutliers(model, 1.0)
    small.product.room = dict.fromkeys(llm_int8.MATRICES, 1)
    assert (small.hidden(ids) - states).abs().max() <= 1e-3 * states.abs().max()
    assert llm_int8.outlier_columns(small) == llm_int8.outlier_columns(expected)
    assert small.product.room["down"] > 1


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
    model = quantised(plain, threshold)
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
    model = quantised(checkpoint.load(folder), threshold)
    other = ids.clone()
    other[0, -1] = token
    apart = (lengths(model, other) - lengths(model, ids))[0, :-1].abs()
    assert apart.max() > 0.01 if threshold else apart.max() == 0


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_a_chunk_beside_it_changes_a_chunk_of_bitsandbytes_and_none_here(ladder, threshold):
    folder, ids, token = ladder
    model = quantised(checkpoint.load(folder), threshold)
    both = torch.cat((ids, torch.full_like(ids, token)))
    assert (lengths(model, both)[0] - lengths(model, ids)[0]).abs().max() <= 1e-3
    if threshold:  # what bitsandbytes does: all rows that pass together are one sequence to its outliers
        model.product.__class__ = Together
        apart = (lengths(model, both)[0] - lengths(model, ids)[0]).abs()
        assert apart.max() > 0.01


class Together(llm_int8.Products):
    def __call__(self, x, weight, bias):
        return super().__call__(x.reshape(1, -1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


def test_thresholds_share_weights_and_outliers_are_counted_by_layer(ladder):
    folder, ids, token = ladder
    model = checkpoint.load(folder, "int8")
    study = llm_int8.WithOutliers(model, 6.0)
    assert study.blocks is model.blocks
    study.hidden(ids)
    without = llm_int8.outlier_columns(study)
    ids = ids.clone()
    ids[0, -1] = token
    study.hidden(ids)
    both = llm_int8.outlier_columns(study)
    assert without["qkv"]["max"][0] == 0 and both["qkv"]["max"][0] == 1 and both["qkv"]["mean"][0] == 0.5
    assert (both["qkv"]["of"], both["down"]["of"]) == (model.width, 4 * model.width)
    assert model.product is llm_int8.by_rows


def test_other_architectures_are_refused(gpt2_folder):
    with pytest.raises(InputError, match="precision int8 is for GPT-NeoX models; choose fp32, bf16 or fp16"):
        checkpoint.load(gpt2_folder, "int8")


def test_a_cell_makes_both_passes_and_adds_up(data, tmp_path, neox_folder):
    folder = planted(neox_folder, tmp_path / "model", [1, 5], 8.0)
    (tmp_path / "out").mkdir()
    ran, about = compress(data, folder, tmp_path / "out", precision="int8")
    assert ran.returncode == 0, ran.stderr
    assert (about["mode"], about["compute"]) == ("lockstep", "fp32") and about["decode_check"]["passed"]
    rows = pq.read_table(tmp_path / "out/step1.parquet").to_pylist()
    ids, *_ = tokens.read(data / "tokens.npz")
    causal = checkpoint.load(folder, "int8")
    study = llm_int8.WithOutliers(causal, 6.0)
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
