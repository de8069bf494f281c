"""The numbers that README.md shows are those of a fresh run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from repository import ROOT

README = (ROOT / "README.md").read_text()


def rows(first):
    """The table of README.md whose first heading is `first`: a list of lists of fields, the heading's included."""
    table = re.search(rf"^\| {first} \|.*?(?=\n\n|\Z)", README, re.S | re.M)[0].splitlines()
    return [[field.strip() for field in line.strip("|").split("|")] for line in (table[0], *table[2:])]


def differences(cells):
    """Sentences on each number of README.md that is not the one of the table of cells, rounded as it is shown there."""
    found = []
    (_, _, *steps), *models = rows("text, lossless")
    text = cells[cells["modality"] == "text"].set_index(["model", "step"])
    for model, parameters, *ratios in models:
        for step, shown in zip(steps, ratios, strict=True):
            cell = text.loc[(model, int(step.removeprefix("step ").replace(",", "")))]
            if int(parameters.replace(",", "")) != cell["params_total"]:
                found.append(f"{model} has {cell['params_total']} parameters, README says {parameters}")
            if f"{cell['cr_lossless']:.3f}" != shown:
                found.append(f"text, {model}, {step}: {cell['cr_lossless']:.4f}, README says {shown}")
    (_, *protocols), *kinds = rows("smallest and largest ratio of 25 cells")
    for kind, *spans in kinds:
        own = cells[cells["modality"] == kind.split()[0]]
        for protocol, span in zip(protocols, spans, strict=True):
            ends = own[f"cr_{protocol}"].min(), own[f"cr_{protocol}"].max()
            for end, shown in zip(ends, span.split(" to "), strict=True):
                if f"{end:.3f}" != shown:
                    found.append(f"{kind}, {protocol}: {end:.4f}, README says {shown}")
    return found


@pytest.fixture
def as_shown():
    """Cells with the very numbers that README.md shows."""
    (_, _, *steps), *models = rows("text, lossless")
    spans = {kind.split()[0]: own for kind, *own in rows("smallest and largest ratio of 25 cells")[1:]}
    cells = []
    for i, (model, parameters, *ratios) in enumerate(models):
        for j, (step, ratio) in enumerate(zip(steps, ratios, strict=True)):
            for modality, own in spans.items():
                ends = [sorted(map(float, span.split(" to ")), reverse=True) for span in own]
                published, lossless = (end[min(i + j, 1)] for end in ends)
                cell = {"modality": modality, "model": model, "step": int(step.removeprefix("step ").replace(",", ""))}
                cell |= {"params_total": int(parameters.replace(",", "")), "cr_published": published}
                cells.append(cell | {"cr_lossless": float(ratio) if modality == "text" else lossless})
    return pd.DataFrame(cells)


def test_a_number_that_moved_is_found(as_shown):
    assert differences(as_shown) == []
    assert len(as_shown) == 100
    moved = as_shown.copy()
    place = moved.index[(moved["modality"] == "text") & (moved["step"] == 300)][1]
    moved.loc[place, "cr_lossless"] += 0.001
    (sentence,) = differences(moved)
    assert sentence.startswith("text, ladder-141k, step 300: ")
    moved = as_shown.copy()
    moved.loc[moved["modality"] == "random", "cr_published"] -= 0.001
    assert [sentence.split(":")[0] for sentence in differences(moved)] == ["random bytes, published"] * 2


@pytest.mark.slow
def test_the_numbers_are_those_of_a_fresh_run(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    snakemake = Path(sys.executable).with_name("snakemake")
    command = [snakemake, "--cores", "8", "results/embedded/tables/cells.csv"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert differences(pd.read_csv(tmp_path / "results/embedded/tables/cells.csv")) == []
