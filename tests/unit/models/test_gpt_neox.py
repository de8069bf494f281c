"""The GPT-NeoX forward pass: as transformers computes it, and the same to the last bit however it is cut."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bitlaw import InputError
from bitlaw.compression import codec
from bitlaw.models import checkpoint

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs MKL's fixed order of summation")


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


@pytest.mark.parametrize(("batch", "count"), [(1, 1), (2, 2), (3, 1), (7, 2)])
def test_steps_give_the_same_bits_as_one_pass(neox, threads, batch, count):
    model = neox
    ids = text_ids(model, 7, model.context)
    expected = model.hidden(ids)
    logits = logits_of(model, expected)
    threads(count)
    # a start of several tokens, then one at a time over the first block's end, and at last several again
    cache, start = model.new_cache(batch, model.context), 240 + batch
    assert torch.equal(model.hidden(ids[:batch, :start], cache, 0), expected[:batch, :start])
    for i in range(start, start + 20):
        state = model.hidden(ids[:batch, i : i + 1], cache, i)
        assert torch.equal(state[:, 0], expected[:batch, i])
        assert torch.equal(model.head(state[:, 0]), logits[:batch, i])
    rest = model.hidden(ids[:batch, start + 20 :], cache, start + 20)
    assert torch.equal(rest, expected[:batch, start + 20 :])


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 255, 256, 257, 259])
def test_a_prefix_gives_the_same_bits_as_the_whole(neox, length):
    ids = text_ids(neox, 2, neox.context)
    assert torch.equal(neox.hidden(ids[:, :length]), neox.hidden(ids)[:, :length])


def test_every_position_steps_from_nothing(neox):
    ids = text_ids(neox, 2, 40)
    expected, cache = neox.hidden(ids), neox.new_cache(2, 40)
    for i in range(40):
        assert torch.equal(neox.hidden(ids[:, i : i + 1], cache, i)[:, 0], expected[:, i])


def test_the_head_gives_the_same_bits_for_any_number_of_rows(neox):
    rows = neox.hidden(text_ids(neox, 1, 40))[0]
    expected = neox.head(rows)
    assert expected.dtype == torch.float32 and expected.shape == (40, neox.vocabulary)
    for count in (1, 2, 3, 4, 5, 17):
        buffer = torch.full((40, neox.vocabulary), torch.nan)
        for out in (None, buffer):
            assert torch.equal(neox.head(rows[:count], out), expected[:count])


def test_later_tokens_do_not_change_earlier_states(neox):
    ids = text_ids(neox, 1, 60)
    changed = ids.clone()
    changed[0, 30:] = (changed[0, 30:] + 1) % neox.vocabulary
    before, after = neox.hidden(ids)[0], neox.hidden(changed)[0]
    assert torch.equal(before[:30], after[:30]) and not (before[30:] == after[30:]).all(-1).any()


def test_this_machine_is_found_invariant_and_a_variant_model_is_not(neox, neox_folder, gpt2):
    class Variant:
        """The same model, but a pass of one token is off by one unit in the last place."""

        def __getattr__(self, name):
            return getattr(neox, name)

        def hidden(self, ids, cache=None, past=0):
            found = neox.hidden(ids, cache, past)
            return found if ids.shape[1] > 1 else torch.nextafter(found, found + 1)

    before = torch.get_num_threads()
    assert codec.invariant(neox)
    assert not codec.invariant(Variant())
    assert not codec.invariant(gpt2)
    assert not any(codec.invariant(checkpoint.load(neox_folder, precision)) for precision in ("bf16", "fp16"))
    assert torch.get_num_threads() == before


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
        (lambda folder: save_file({"embed_in.weight": torch.zeros(2, 2)}, folder / "model.safetensors"), "lacks"),
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
