"""The studies pythia and pythia-small: jobs by dry run, checkpoints by the workflow, and, shrunken, from end to end."""

import io
import json
import os
import shutil

import pandas as pd
import pytest
import soundfile
import yaml

from bitlaw.analysis import published_cells
from bitlaw.data import sources
from bitlaw.models.ladder import build, save_checkpoint
from hub_datasets import add_images, add_speech
from hub_server import HubServer
from repository import jobs, run
from tiny_models import CONTEXT, PADDED_VOCABULARY, PASSAGE

STUDY = "workflow/studies/pythia.yaml"
SMALL_STUDY = "workflow/studies/pythia-small.yaml"
WIDTHS = {
    **{"pythia-14m": 16, "pythia-31m": 32, "pythia-70m": 48, "pythia-160m": 64},
    **{"pythia-410m": 80, "pythia-1b": 96, "pythia-1.4b": 112},
}
STEPS = [1000, 8000, 32000, 128000, 143000]
SOME_MODELS = {"pythia-70m": 70e6, "pythia-410m": 410e6, "pythia-1.4b": 1.4e9}
SOME_STEPS = [1000, 8000, 143000]
CHAIN = {"fetch": 1, "shard": 1, "fetch_tokenizer": 1, "tokenize": 1, "fetch_model": 1, "compress": 1}


def test_the_full_study_has_exactly_these_jobs(clone):
    assert jobs(run(clone, "-n", "--configfile", STUDY).stdout) == {
        "fetch": 4,
        "shard": 4,
        "fetch_tokenizer": 1,
        "tokenize": 4,
        "fetch_model": 25,
        "compress": 100,
        "table": 1,
        "compare": 1,
        "classical": 4,
        "bits": 1,
        "context": 1,
        "bit_figures": 1,
        "fit": 4,
        "figure": 1,
        "pictures": 2,
        "laws_together": 1,
        "benchmarks": 1,
        "page": 1,
        "all": 1,
    }


def test_the_small_study_has_exactly_these_jobs(clone):
    found = jobs(run(clone, "-n", "--configfile", SMALL_STUDY).stdout)
    assert (found["fetch"], found["fetch_model"], found["compress"], found["fit"]) == (4, 20, 80, 4)
    assert "compare" not in found


@pytest.mark.parametrize("cell", ["text/pythia-70m/step1000", "image/pythia-1.4b/step143000"])
def test_one_cell_by_its_path_needs_exactly_its_chain(clone, cell):
    assert jobs(run(clone, "-n", f"results/pythia/cells/{cell}.json", "--configfile", STUDY).stdout) == CHAIN


def test_two_modalities_of_a_step_fetch_its_model_once(clone):
    cells = [f"results/pythia/cells/{modality}/pythia-1b/step8000.json" for modality in ("text", "random")]
    found = jobs(run(clone, "-n", *cells, "--configfile", STUDY).stdout)
    assert found["fetch_model"] == 1 and found["fetch_tokenizer"] == 1 and found["compress"] == 2


@pytest.fixture(scope="module")
def hub(tokenizer, tmp_path_factory):
    """A Hub that has all revisions of both studies, with models that are tiny and differ."""
    with HubServer() as server:
        for name, width in WIDTHS.items():
            for step in STEPS:
                folder = tmp_path_factory.mktemp(name)
                shape = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": width // 16}
                model = build(shape, {"sequence_length": CONTEXT, "seed": step + width}, PADDED_VOCABULARY)
                save_checkpoint(model, tokenizer, folder)
                files = {path.name: path.read_bytes() for path in folder.iterdir()}
                server.add(f"EleutherAI/{name}", files | {"README.md": b"# Pythia"}, f"step{step}")
        yield server


@pytest.fixture(scope="module")
def shrunken(clone, hub):
    """Run the study with few chunks, models and steps; all but the text from the loopback Hub."""
    (clone / "passages").mkdir()
    (clone / "passages" / "a.txt").write_text(PASSAGE * 20)
    study = yaml.safe_load((clone / STUDY).read_text())
    text = {"name": "text", "source": "passages", "cut": "bytes", "sampling": "head"}
    small = {"chunks": 4, "precision": "int8", "device": "cpu", "verify": 1, "steps": SOME_STEPS}
    small["modalities"] = [text, *(m for m in study["modalities"] if m["name"] != "text")]
    small["models"] = [m for m in study["models"] if m["name"] in SOME_MODELS]
    small["sources"] = {name: {"revision": "main"} for name in ("imagenet-val", "librispeech-clean-100")}
    cells = [",".join(published_cells.PUBLISHED_COLUMNS)]
    cells += [f"{d},{m},{s},0.4,0.1,2048,120" for d in ("text", "image", "speech") for m in SOME_MODELS for s in STEPS]
    (clone / "cells.csv").write_text("\n".join(cells) + "\n")
    small["compare_with"] = "cells.csv"
    small["sources"]["passages"] = {"folder": "passages", "pattern": "*.txt", "licence": "public domain"}
    (clone / "small.yaml").write_text(yaml.safe_dump(small))
    environment = environment_of(hub, clone)

    def start(*arguments, timeout=600, **changed):
        configured = (*arguments, "--configfile", STUDY, "small.yaml")
        return run(clone, *configured, timeout=timeout, env=environment | changed)

    return start


def environment_of(hub, clone):
    """Environment variables of a run that knows this Hub only."""
    unset = ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return environment | {"HF_ENDPOINT": hub.base, "HF_HOME": str(clone / "hf"), "no_proxy": "127.0.0.1"}


def test_a_checkpoint_is_fetched_by_the_workflow_and_a_moved_branch_refused(clone, hub, shrunken):
    path = "data/models/pythia-410m/step8000/source.json"
    first = shrunken(path)
    assert first.returncode == 0, first.stderr
    assert jobs(first.stdout + first.stderr) == {"fetch_tokenizer": 1, "fetch_model": 1}
    record = json.loads((clone / path).read_text())
    assert record["commit"] == hub.refs["EleutherAI/pythia-410m"]["step8000"]
    assert (clone / "data/commits/EleutherAI/pythia-410m/step8000").read_text().strip() == record["commit"]
    assert jobs(shrunken("-n", "results/pythia/cells/text/pythia-410m/step8000.json").stdout) == {
        name: count for name, count in CHAIN.items() if not name.startswith("fetch_")
    }
    shutil.rmtree(clone / "data/models")
    before = dict(hub.refs["EleutherAI/pythia-410m"])
    try:
        moved = hub.add("EleutherAI/pythia-410m", hub.commits[before["step1000"]], "step8000")
        second = shrunken(path)
    finally:
        hub.refs["EleutherAI/pythia-410m"] = before
    assert second.returncode != 0 and not (clone / path).exists()
    log = (clone / "results/pythia/logs/fetch/pythia-410m/step8000.log").read_text()
    assert f"now commit {moved}, before it was {record['commit']}" in log
    third = shrunken(path, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert third.returncode == 0, third.stderr
    assert json.loads((clone / path).read_text()) == record


def archived(name, root):
    """Files of the embedded study's source `name`, fetched as that study fetches them."""
    source = yaml.safe_load((root / "config.yaml").read_text())["sources"][name]
    folder = root / "data/raw" / name
    return [folder / entry["path"] for entry in sources.fetch(name, source, folder)["files"]]


def real_photographs(root):
    return [path.read_bytes() for path in archived("photographs", root)]


def real_speech(root):
    """Readings as FLAC."""
    found = []
    for path in archived("readers", root):
        samples, rate = soundfile.read(path, dtype="int16")
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, rate, "PCM_16", format="FLAC")
        found.append(buffer.getvalue())
    return found


@pytest.mark.slow
def test_the_shrunken_study_runs_from_end_to_end(clone, hub, shrunken):
    """Real photographs and speech lie on the Hub as in ImageNet and LibriSpeech; they come through pip's index."""
    add_images(hub, real_photographs(clone))
    add_speech(hub, real_speech(clone))
    ran = shrunken("--rerun-incomplete", timeout=3000)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    cells = pd.read_csv(clone / "results/pythia/tables/cells.csv")
    assert dict(zip(cells["model"], cells["params_nominal"], strict=True)) == SOME_MODELS
    assert dict(cells["modality"].value_counts()) == dict.fromkeys(["text", "image", "speech", "random"], 9)
    assert (cells[cells["modality"] == "random"]["cr_lossless"] > 1).all()
    for modality, name, step in zip(cells["modality"], cells["model"], cells["step"], strict=True):
        about = json.loads((clone / f"results/pythia/cells/{modality}/{name}/step{step}.json").read_text())
        commit = hub.refs[f"EleutherAI/{name}"][f"step{step}"]
        assert about["origin"] == {"repository": f"EleutherAI/{name}", "revision": f"step{step}", "commit": commit}
        assert about["decode_check"]["passed"] and about["precision"] == "int8" and about["quantisation"]
    beside = pd.read_csv(clone / "results/pythia/tables/comparison.csv")
    assert (
        list(beside.columns[:7]) == published_cells.PUBLISHED_COLUMNS
        and len(beside) == 27
        and (beside["cr_there"] == 0.4).all()
    )
    law = json.loads((clone / "results/pythia/laws/text.json").read_text())
    assert {"total", "nonembedding", "nominal", "after warm-up"} <= set(law["lossless"]["sensitivity"])
    for kind in ("svg", "pdf", "png"):
        assert (clone / f"results/pythia/figures/scaling.{kind}").stat().st_size > 5000
    assert "Nothing to be done" in shrunken("-n").stdout


@pytest.mark.slow
def test_the_small_study_runs_from_end_to_end(clone, hub):
    """All four models at all five steps, with few chunks; text, photographs and speech come through pip's index."""
    command = ("--configfile", SMALL_STUDY, "--rerun-incomplete", "--config", "chunks=2")
    ran = run(clone, *command, timeout=3000, env=environment_of(hub, clone))
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    cells = pd.read_csv(clone / "results/pythia-small/tables/cells.csv")
    assert len(cells) == 80 and cells["cr_lossless"].notna().all()
    for about in (json.loads(path.read_text()) for path in clone.glob("results/pythia-small/cells/*/*/*.json")):
        assert about["precision"] == "exact" and about["decode_check"]["passed"]
    assert (clone / "results/pythia-small/report.html").exists()
