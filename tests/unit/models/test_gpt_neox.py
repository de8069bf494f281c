"""The GPT-NeoX forward pass in floating point: as transformers computes it, in one pass and by steps."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bitlaw import InputError
from bitlaw.models import checkpoint


def text_ids(model, batch, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, model.vocabulary, (batch, length)))


def logits_of(model, hidden):
    return model.head(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)


@pytest.mark.parametrize("fixture", ["neox_folder", "serial_neox_folder"])
def test_logits_are_those_of_transformers(fixture, request):
    folder = request.getfixturevalue(fixture)
    model = checkpoint.load(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = text_ids(model, 3, model.context)
    with torch.inference_mode():
        expected = reference(ids, use_cache=False).logits
    assert expected.std() > 0.5  # else the comparison says little
    assert (logits_of(model, model.hidden(ids)) - expected).abs().max() <= 1e-4


def test_serial_and_parallel_residuals_differ(serial_neox_folder):
    serial = checkpoint.load(serial_neox_folder)
    ids = text_ids(serial, 1, 20)
    before = serial.hidden(ids)
    serial.parallel = True
    assert not torch.allclose(before, serial.hidden(ids), atol=1e-2)


@pytest.mark.parametrize("batch", [1, 3])
def test_steps_and_blocks_onto_a_cache_are_near_one_pass(neox, batch):
    ids = text_ids(neox, batch, neox.context)
    expected = neox.hidden(ids)
    cache, start = neox.new_cache(batch, neox.context), 240
    parts = [neox.hidden(ids[:, :start], cache, 0)]
    parts += [neox.hidden(ids[:, i : i + 1], cache, i) for i in range(start, start + 20)]
    parts.append(neox.hidden(ids[:, start + 20 :], cache, start + 20))  # several tokens behind a cache
    assert (torch.cat(parts, 1) - expected).abs().max() <= 1e-4 < 1e-2 * expected.std()


def test_the_head_fills_a_buffer_or_makes_its_own(neox):
    rows = neox.hidden(text_ids(neox, 1, 40))[0]
    buffer = torch.full((40, neox.vocabulary), torch.nan)
    expected = neox.head(rows)
    assert expected.dtype == torch.float32 and expected.shape == (40, neox.vocabulary)
    assert torch.allclose(neox.head(rows[:17], buffer), expected[:17], atol=1e-5) and buffer[17:].isnan().all()


def test_later_tokens_do_not_change_earlier_states(neox):
    ids = text_ids(neox, 1, 60)
    changed = ids.clone()
    changed[0, 30:] = (changed[0, 30:] + 1) % neox.vocabulary
    before, after = neox.hidden(ids)[0], neox.hidden(changed)[0]
    assert torch.equal(before[:30], after[:30]) and not (before[30:] == after[30:]).all(-1).any()


def test_a_position_past_the_context_raises(neox):
    with pytest.raises(ValueError, match="exceed the context"):
        neox.hidden(text_ids(neox, 1, neox.context + 1))
    cache = neox.new_cache(1, neox.context)
    neox.hidden(text_ids(neox, 1, neox.context), cache, 0)
    with pytest.raises(ValueError, match="exceed the context"):
        neox.hidden(text_ids(neox, 1, 1), cache, neox.context)


def test_parameters_are_counted_with_and_without_embeddings(neox, neox_folder):
    about = checkpoint.describe(neox_folder)
    reference = AutoModelForCausalLM.from_pretrained(neox_folder)
    assert about["params_total"] == sum(p.numel() for p in reference.parameters())
    assert about["params_total"] - about["params_nonembedding"] == 2 * neox.vocabulary * neox.width


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678901234567890"), "not a safetensors file"),
        (lambda folder: (folder / "config.json").unlink(), "no readable model configuration"),
        (lambda folder: (folder / "config.json").write_text("{"), "no readable model configuration"),
        (lambda folder: save_file({"embed_in.weight": torch.zeros(2, 2)}, folder / "model.safetensors"), "the shape"),
    ],
)
def test_a_damaged_checkpoint_is_refused(neox_folder, tmp_path, damage, message):
    for file in neox_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        checkpoint.load(tmp_path)


def test_another_precision_is_refused(neox_folder):
    with pytest.raises(InputError, match="int3"):
        checkpoint.load(neox_folder, "int3")


def test_old_names_and_constants_in_the_weights_do_not_matter(neox, neox_folder, tmp_path):
    for file in neox_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("embed_out.weight")
    weights["gpt_neox.layers.0.attention.bias"] = torch.zeros(1, 1, 4, 4)
    save_file(weights, tmp_path / "model.safetensors")
    ids = text_ids(neox, 1, 10)
    assert torch.equal(neox.head(neox.hidden(ids)[0]), (m := checkpoint.load(tmp_path)).head(m.hidden(ids)[0]))
    counts = [checkpoint.describe(folder)["params_total"] for folder in (neox_folder, tmp_path)]
    assert counts[0] == counts[1]
