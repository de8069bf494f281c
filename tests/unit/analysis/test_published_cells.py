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
PRINTED = ROOT / "data/published/printed_laws.csv"
SHARED = ROOT.parent / "shared" / "published" / "cells_2025.csv"
NAMES = {modality: name for name, modality in published_cells.MODALITIES.items()}


def as_authors_write(cells):
    """The rows of `cells` as compression_results.csv has them: its columns, and in its order, by model."""
    rows = cells.assign(
        checkpoint="step" + cells["step"].astype(str),
        dataset=cells["modality"].map(NAMES),
        eval_time_minutes=cells["seconds"] / 60,
        timestamp=0.5,
    ).rename(columns={"cr_mean": "compression_ratio", "cr_std": "compression_std", "chunks": "chunks_processed"})
    order = ["model", "checkpoint", "dataset", "compression_ratio", "compression_std", "chunks_processed"]
    return rows.sort_values("model", kind="stable")[[*order, "eval_time_minutes", "timestamp"]]


@pytest.fixture
def planted(tmp_path):
    """(path, cells): 75 cells of a planted law in the authors' format."""
    rows = []
    for modality, least in (("text", 0.1), ("image", 0.4), ("speech", 0.38)):
        for model, size in published_law.NOMINAL.items():
            for step in STUDY["steps"]:
                ratio = least + 60 * size**-0.38 + 14 * step**-0.75
                rows.append((modality, model, step, ratio, 0.04, 2048 - (modality == "image"), 75.0))
    cells = pd.DataFrame(rows, columns=published_cells.PUBLISHED_COLUMNS)
    as_authors_write(cells).to_csv(tmp_path / "compression_results.csv", index=False)
    return tmp_path / "compression_results.csv", cells


def sorted_cells(table):
    return table.sort_values(["modality", "model", "step"], ignore_index=True)


def test_the_authors_table_is_read_in_the_columns_that_others_use(planted):
    path, cells = planted
    found = published_cells.cells(path)
    assert list(found.columns) == published_cells.PUBLISHED_COLUMNS
    pd.testing.assert_frame_equal(sorted_cells(found), sorted_cells(cells), check_dtype=False)
    assert list(found["modality"].drop_duplicates()) == ["text", "image", "speech"]


def test_the_columns_and_values_are_those_of_the_published_cells(tmp_path):
    if not SHARED.exists():
        pytest.skip(f"{SHARED.name}: the published cells are not beside this checkout")
    cells = pd.read_csv(SHARED)
    assert list(cells.columns) == published_cells.PUBLISHED_COLUMNS
    as_authors_write(cells).to_csv(tmp_path / "compression_results.csv", index=False)
    found = published_cells.cells(tmp_path / "compression_results.csv")
    pd.testing.assert_frame_equal(sorted_cells(found), sorted_cells(cells), check_dtype=False)


def test_the_printed_table_agrees_with_the_cells_to_its_two_decimals():
    printed = published_cells.cells(ROOT / "data/published/printed_tables.csv")
    assert printed.groupby("modality").size().to_dict() == {"text": 25, "image": 5, "speech": 5}
    if SHARED.exists():
        both = printed.merge(pd.read_csv(SHARED), on=["modality", "model", "step"])
        assert len(both) == 35 and (both["cr_mean_x"] - both["cr_mean_y"]).abs().max() <= 0.005 + 1e-9


def test_other_files_are_refused(tmp_path):
    (tmp_path / "other.csv").write_text("model,score\npythia-70m,1\n")
    with pytest.raises(InputError, match=r"other\.csv: neither compression_results\.csv nor a printed table"):
        published_cells.cells(tmp_path / "other.csv")
    (tmp_path / "new.csv").write_text(
        "model,checkpoint,dataset,compression_ratio,compression_std,chunks_processed,eval_time_minutes\n"
        "pythia-70m,step1000,genome,0.2,0.1,2048,1\n"
    )
    with pytest.raises(InputError, match="data set 'genome'; known: enwik8"):
        published_cells.cells(tmp_path / "new.csv")


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
        embedding = sum(n for name, n in counts.items() if any(f"{part}." in name for part in checkpoint.EMBEDDINGS))
        assert model["total"] == sum(counts.values()) and model["nonembedding"] == sum(counts.values()) - embedding


def test_the_published_law_is_refitted_from_the_cells_or_printed(planted):
    found = published_law.law("text", PRINTED, published_cells.cells(planted[0]))
    assert found["label"] == "refitted from its 25 cells"
    assert found["coefficients"]["alpha"]["value"] == pytest.approx(0.38, rel=1e-3)
    printed = published_law.law("speech", PRINTED)
    assert printed == {
        "label": "printed, rounded",
        "coefficients": {"a": 0.39, "b": 8000, "alpha": 0.68, "c": 100, "beta": 0.85},
    }
    rounded = published_cells.cells(ROOT / "data/published/printed_tables.csv")
    assert published_law.law("speech", PRINTED, rounded) == printed
    assert published_law.law("random", PRINTED) is None
    schema = yaml.safe_load((Path(fitting.__file__).parents[2] / "schemas" / "law.schema.yaml").read_text())
    Draft202012Validator(schema["$defs"]["law"]["properties"]["published"]).validate(printed)


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
    found = published_cells.compare(ours, there, chunks)
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
        published_cells.compare(ours.assign(model="other"), there, chunks)


def test_the_study_names_the_file_of_the_study(planted):
    place = STUDY["sources"]["published-cells"]["places"][0]
    assert place["url"].endswith("d3ec1c5b9af3f66a02157e9cd591d3cafb97f93f/compression_results.csv")
    assert " " not in place["url"] and len(place["sha256"]) == 64
    assert hashlib.sha256(planted[0].read_bytes()).hexdigest() != place["sha256"]  # a table of our own is not taken
