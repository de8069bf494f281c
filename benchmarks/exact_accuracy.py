"""Accuracy of exact arithmetic: a study's code lengths beside those in fp32, and logits beside transformers'.

    snakemake --cores 2 [--configfile FILE] --until tokenise gguf_model    # chunks, tokens, models
    PYTHONPATH=workflow python benchmarks/exact_accuracy.py [--study FILE] [--chunks N] [--outliers]

prints markdown tables for the study of config.yaml, or of FILE, from the data that Snakemake has left below the folder
one stands in; nothing is asserted. A code length is that of a chunk's tokens in the stream's integer frequencies,
log2(total / frequency); a difference is (exact - fp32) / fp32. With --outliers the study's first modality is coded by
its models with large channels planted in them, which leave their function as it was: docs/int8.md.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from snakemake.utils import update_config
from transformers import AutoModelForCausalLM

from bitlaw import study
from bitlaw.compression import accounting, scoring
from bitlaw.data import tokens
from bitlaw.models import checkpoint

ROOT = Path(__file__).resolve().parents[1]
GAINS = (4, 16, 64, 256)
PLANTED = 6  # channels
THREADS = 2


def bits(model, ids):
    """Code length of each chunk of token ids, float64 `[chunks]`."""
    return np.array([accounting.ideal_bits(own).sum() for own in scoring.score(model, ids, 4096, THREADS)])


def both(folder, ids):
    """(bits in exact arithmetic, bits in fp32) of each chunk under the checkpoint in `folder`."""
    return bits(checkpoint.load(folder, "exact"), ids), bits(checkpoint.load(folder, "fp32"), ids)


def difference(exact, fp32):
    """Relative, of the sums of two arrays."""
    return exact.sum() / fp32.sum() - 1


def logits_apart(folder, ids):
    """(largest difference between exact logits and transformers' in fp32, standard deviation of the latter)."""
    exact = checkpoint.load(folder, "exact")
    ids = ids[: exact.context].astype(np.int64)
    ours = exact.head(exact.hidden(ids), 0, len(ids))
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        theirs = reference(torch.from_numpy(ids)[None], use_cache=False).logits[0].numpy()
    return np.abs(ours - theirs).max(), theirs.std()


def plant(folder, out, gain, layers, seed=0):
    """A copy of a GPT-NeoX checkpoint that computes the same with PLANTED channels of its norms' outputs × `gain`.

    layers: whose. In each, a norm's gain and bias grow and the columns of the matrix behind it shrink.
    """
    shutil.copytree(folder, out)
    weights = {name: tensor.float() for name, tensor in load_file(out / "model.safetensors").items()}
    random = np.random.default_rng(seed)
    for layer in layers:
        at = f"gpt_neox.layers.{layer}."
        for norm, matrix in (
            ("input_layernorm", "attention.query_key_value"),
            ("post_attention_layernorm", "mlp.dense_h_to_4h"),
        ):
            channels = random.choice(len(weights[f"{at}{norm}.weight"]), PLANTED, replace=False)
            for part in ("weight", "bias"):
                weights[f"{at}{norm}.{part}"][channels] *= gain
            weights[f"{at}{matrix}.weight"][:, channels] /= gain
    save_file(weights, out / "model.safetensors")
    return out


def ids_of(config, modality, model, chunks):
    """Token ids of the first `chunks` chunks of a modality for a model (names of the study), as the study has them."""
    entry = study.by_name(config, "models", model)
    return tokens.read(f"data/tokens/{study.dataset(config, modality)}/{entry['tokenizer']}.npz")[0][:chunks]


def heading(first, columns):
    print(f"\n| {first} | {' | '.join(map(str, columns))} |\n|---|{'---:|' * len(columns)}", flush=True)


def lengths(config, chunks):
    """A row a model: the largest difference of its checkpoints for each modality, then that of single chunks."""
    kinds = [m["name"] for m in config["modalities"]]
    heading("model", [*(f"{kind}, cells" for kind in kinds), "single chunks", "all cells"])
    for model in (m["name"] for m in config["models"]):
        cells = {
            (kind, step): both(study.checkpoint(config, model, step), ids_of(config, kind, model, chunks))
            for kind in kinds
            for step in config["steps"]
        }
        worst = [max((difference(*pair) for (k, _), pair in cells.items() if k == kind), key=abs) for kind in kinds]
        single = max(((a / b - 1) for pair in cells.values() for a, b in zip(*pair, strict=True)), key=abs)
        together = difference(*(np.concatenate(side) for side in zip(*cells.values(), strict=True)))
        print(f"| {model} | {' | '.join(f'{100 * d:+.5f} %' for d in (*worst, single, together))} |", flush=True)


def logits(config):
    """A row a model, at its last step: the first chunk of each modality."""
    kinds = [m["name"] for m in config["modalities"]]
    heading("largest difference of logits (their standard deviation)", kinds)
    for model in (m["name"] for m in config["models"]):
        folder = study.checkpoint(config, model, config["steps"][-1])
        apart = (logits_apart(folder, ids_of(config, kind, model, 1)[0]) for kind in kinds)
        print(f"| {model} | {' | '.join(f'{largest:.1e} ({spread:.1f})' for largest, spread in apart)} |", flush=True)


def outliers(config, chunks):
    """A row a model and place, at its last step: the first modality, a column a gain."""
    kind, step = config["modalities"][0]["name"], config["steps"][-1]
    heading(f"{PLANTED} channels × gain, {kind}", ["none", *GAINS])
    for model in (m["name"] for m in config["models"]):
        folder, ids = Path(study.checkpoint(config, model, step)), ids_of(config, kind, model, chunks)
        count = yaml.safe_load((folder / "config.json").read_text())["num_hidden_layers"]
        for name, layers in (("first layer", [0]), ("every layer", range(count))):
            found = [difference(*both(folder, ids))]
            for gain in GAINS:
                with tempfile.TemporaryDirectory() as scratch:
                    found.append(difference(*both(plant(folder, Path(scratch) / "planted", gain, layers), ids)))
            print(f"| {model}, {name} | {' | '.join(f'{100 * d:+.4f} %' for d in found)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, help="a file of workflow/studies")
    parser.add_argument("--chunks", type=int, default=8, help="of each modality")
    parser.add_argument("--outliers", action="store_true", help="GPT-NeoX models with planted channels")
    given = parser.parse_args()
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    if given.study:
        update_config(config, yaml.safe_load(given.study.read_text()))
    torch.set_num_threads(THREADS)
    if given.outliers:
        outliers(config, given.chunks)
    else:
        lengths(config, given.chunks)
        logits(config)


if __name__ == "__main__":
    main()
