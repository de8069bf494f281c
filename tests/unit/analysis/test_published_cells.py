"""The published study's cells: read, entered as a table of ours, refitted, and set beside our own."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator

from bitlaw import InputError
from bitlaw.analysis import cell_table, published_cells
from bitlaw.laws import fitting, published_law
from bitlaw.models import checkpoint
from repository import ROOT

STUDY = yaml.safe_load((ROOT / "workflow/studies/published.yaml").read_text())
PUBLISHED = ROOT / "data" / "published"
PRINTED = PUBLISHED / "printed_laws.csv"


@pytest.fixture
def planted(tmp_path):
    """(path, cells): 75 cells of a planted law."""
    rows = []
    for modality, least in (("text", 0.1), ("image", 0.4), ("speech", 0.38)):
        for model, size in published_law.NOMINAL.items():
            for step in STUDY["steps"]:
                ratio = least + 60 * size**-0.38 + 14 * step**-0.75
                rows.append((modality, model, step, ratio, 0.04, 2048 - (modality == "image"), 75.0))
    cells = pd.DataFrame(rows, columns=published_cells.PUBLISHED_COLUMNS)
    cells.to_csv(tmp_path / "cells.csv", index=False)
    return tmp_path / "cells.csv", cells


def test_a_table_of_cells_is_read_as_it_is(planted):
    path, cells = planted
    pd.testing.assert_frame_equal(published_cells.cells(path), cells)


def test_the_cells_of_2025_are_those_of_the_study():
    cells = published_cells.cells(PUBLISHED / "cells_2025.csv")
    assert list(cells.columns) == published_cells.PUBLISHED_COLUMNS and cells.notna().all(axis=None)
    assert cells.groupby("modality").size().to_dict() == {"text": 25, "image": 25, "speech": 25}
    assert set(cells["model"]) == {model["name"] for model in STUDY["models"]}
    assert set(cells["step"]) == set(STUDY["steps"])
    assert cells["seconds"].sum() == pytest.approx(10_671, abs=1)


def test_the_cells_of_2026_know_only_means_and_hold_the_same_text():
    cells = published_cells.cells(PUBLISHED / "cells_2026.csv")
    assert cells["cr_mean"].notna().all() and cells[["cr_std", "chunks", "seconds"]].isna().all(axis=None)
    both = cells.merge(published_cells.cells(PUBLISHED / "cells_2025.csv"), on=["modality", "model", "step"])
    text = both[both["modality"] == "text"]
    assert len(text) == 25 and (text["cr_mean_x"] - text["cr_mean_y"]).abs().max() <= 0.0005 + 1e-9


def test_the_readme_names_the_files_and_their_hashes():
    """So that an edit of a committed figure does not go unseen."""
    text = (PUBLISHED / "README.md").read_text()
    for path in PUBLISHED.glob("*.csv"):
        assert f"`{path.name}`" in text, path.name
    for name in ("cells_2025.csv", "cells_2026.csv"):
        assert hashlib.sha256((PUBLISHED / name).read_bytes()).hexdigest() in text, name


def test_the_printed_table_agrees_with_the_cells_to_its_two_decimals():
    printed = published_cells.cells(PUBLISHED / "printed_tables.csv")
    assert printed.groupby("modality").size().to_dict() == {"text": 25, "image": 5, "speech": 5}
    both = printed.merge(published_cells.cells(PUBLISHED / "cells_2025.csv"), on=["modality", "model", "step"])
    assert len(both) == 35 and (both["cr_mean_x"] - both["cr_mean_y"]).abs().max() <= 0.005 + 1e-9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "model,score\npythia-70m,1\n",
            "has no column 'modality'; published cells need modality, model,",
        ),
        ("modality,model,step,cr_mean\ntext,a,1,0.2\ntext,b,1,low\n", "line 3: cr_mean is 'low'; give a number"),
        ("modality,model,step,cr_mean\ntext,a,1,\n", "line 2: cr_mean is 'nan'; give a number"),
        ("modality,model,step,cr_mean,chunks\ntext,a,1,0.2,many\n", "line 2: chunks is 'many'"),
        ("modality,model,step,cr_mean\ntext,a,1,0.2\ntext,a,1,0.3\n", "the cell text a 1 is given twice"),
        ("", "cannot be read as CSV"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        published_cells.cells(tmp_path / "other.csv")
    assert str(tmp_path / "other.csv") in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_published_cells_enter_as_a_table_of_ours(planted):
    table = published_cells.as_cells(published_cells.cells(planted[0]), STUDY["models"])
    assert list(table.columns) == list(cell_table.CELL_COLUMNS) and len(table) == 75
    first = table.query("modality == 'text' and model == 'pythia-70m' and step == 1000").iloc[0]
    assert first["cr_published"] == pytest.approx(planted[1]["cr_mean"][0]) and np.isnan(first["cr_lossless"])
    assert first["cr_published_ci"] == pytest.approx(1.96 * 0.04 / 2048**0.5)
    assert table.groupby("modality")["dropped"].unique().map(list).to_dict() == {
        "text": [0],
        "image": [1],
        "speech": [0],
    }
    with pytest.raises(InputError, match=r"models: 'pythia-410m' of the published cells has no entry"):
        published_cells.as_cells(
            published_cells.cells(planted[0]), [m for m in STUDY["models"] if m["name"] != "pythia-410m"]
        )


def test_the_counts_of_parameters_are_those_of_the_models():
    """Built without memory, from Pythia's shapes (Biderman et al. 2023, table 1)."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shapes = {"70m": (512, 6), "160m": (768, 12), "410m": (1024, 24), "1b": (2048, 16), "1.4b": (2048, 24)}
    for model in STUDY["models"]:
        width, layers = shapes[model["name"].removeprefix("pythia-")]
        with torch.device("meta"):
            built = GPTNeoXForCausalLM(
                GPTNeoXConfig(
                    vocab_size=50304, hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width
                )
            )
        counts = {name: tensor.numel() for name, tensor in built.named_parameters()}
        embedding = sum(count for name, count in counts.items() if checkpoint.is_embedding(name))
        assert model["total"] == sum(counts.values()) and model["nonembedding"] == sum(counts.values()) - embedding


def test_the_published_law_is_refitted_from_the_cells_or_printed(planted):
    found = published_law.law("text", PRINTED, published_cells.cells(planted[0]))
    assert found["label"] == "refitted from its 25 cells"
    assert found["coefficients"]["alpha"] == pytest.approx(0.38, rel=1e-3)
    printed = published_law.law("speech", PRINTED)
    assert printed == {
        "label": "printed, rounded",
        "coefficients": {"a": 0.39, "b": 8000, "alpha": 0.68, "c": 100, "beta": 0.85},
    }
    rounded = published_cells.cells(PUBLISHED / "printed_tables.csv")
    assert published_law.law("speech", PRINTED, rounded) == printed
    assert published_law.law("random", PRINTED) is None
    schema = yaml.safe_load((Path(fitting.__file__).parents[2] / "schemas" / "law.schema.yaml").read_text())
    reference = {"$defs": schema["$defs"], "$ref": "#/$defs/law/properties/reference"}
    Draft202012Validator(reference).validate(printed)


def test_our_cells_beside_the_published(planted):
    there = published_cells.cells(planted[0])
    rng = np.random.default_rng(0)
    ours = published_cells.as_cells(there, STUDY["models"]).query("step == 1000 and modality != 'speech'")
    off = {("text", "pythia-70m"): 0.0049, ("text", "pythia-160m"): -0.0051, ("image", "pythia-1b"): 0.02}
    move = [off.get((modality, model), 0.0) for modality, model in zip(ours["modality"], ours["model"], strict=True)]
    ours = ours.assign(cr_published=ours["cr_published"] + move)
    scatter = rng.normal(size=(len(ours), 512)) * 0.04
    scatter -= scatter.mean(axis=1, keepdims=True)
    keys = zip(ours["modality"], ours["model"], ours["step"], strict=True)
    chunks = dict(zip(keys, ours["cr_published"].to_numpy()[:, None] + scatter, strict=True))
    files = {"text": ["enwik8"] * 512, "image": list(range(512)), "random": ["random"] * 512}
    found = published_cells.compare(ours, there, chunks, files)
    assert list(found.columns[:7]) == published_cells.PUBLISHED_COLUMNS and len(found) == 10
    np.testing.assert_allclose(found["difference"], move, atol=1e-12)
    flagged = found[found["flag"]]
    assert list(zip(flagged["modality"], flagged["model"], strict=True)) == [
        ("text", "pythia-160m"),
        ("image", "pythia-1b"),
    ]
    width = (found["high"] - found["low"]) / (2 * 1.96 * 0.04 / 512**0.5)
    assert width.between(0.7, 1.3).all()
    with pytest.raises(InputError, match="no cell of this study has a published one"):
        published_cells.compare(ours.assign(model="other"), there, chunks, files)
