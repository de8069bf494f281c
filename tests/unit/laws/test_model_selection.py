"""How sure a law is: bootstraps, forms side by side, hold-outs, lack of fit, and the published cells' own answers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from jsonschema import Draft202012Validator

from bitlaw import InputError
from bitlaw.laws import bootstrap, fitting, formatting, forms, model_selection
from repository import ROOT

NOMINAL = {"70m": 70e6, "160m": 160e6, "410m": 410e6, "1b": 1e9, "1.4b": 1.4e9, "2.8b": 2.8e9, "6.9b": 6.9e9,
           "12b": 12e9}  # fmt: skip
P, S = (grid.ravel() for grid in np.meshgrid([64e3, 160e3, 400e3, 900e3, 1.9e6], [75.0, 150, 300, 600, 1200]))
SHARP = {"a": 0.2, "b": 30.0, "alpha": 0.45, "c": 20.0, "beta": 0.9}
COUPLED = {"a": 0.1, "b": 200.0, "alpha": 0.9, "c": 8.0, "beta": 0.9, "k": 0.4}


def planted(form="additive", noise=0.001, seed=0, **c):
    truth = forms.evaluate(form, SHARP | c, P, S)
    return truth + noise * np.random.default_rng(seed).normal(size=len(P))


def published(name):
    return pd.read_csv(ROOT / "data" / "published" / name)


def table(ratio):
    return pd.DataFrame({"step": S, "params_total": P, "params_nonembedding": 0.8 * P, "cr": ratio})


@pytest.fixture(scope="module")
def assessed():
    chunks = planted(noise=0)[:, None] + 0.01 * np.random.default_rng(1).normal(size=(1, 64))
    chunks = chunks + 0.003 * np.random.default_rng(2).normal(size=(25, 64))
    return model_selection.assess(table(chunks.mean(axis=1)), "cr", chunks, warmup=100), chunks


def test_the_assessment_is_json_and_holds_every_part(assessed):
    law, _ = assessed
    assert json.loads(json.dumps(law, allow_nan=False)) == law
    schema = yaml.safe_load((Path(fitting.__file__).parents[2] / "schemas" / "law.schema.yaml").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate({"lossless": law})
    assert not list(Draft202012Validator(schema).iter_errors({"lossless": {**law, "forms": {}}}))
    assert list(Draft202012Validator(schema).iter_errors({"lossless": {**law, "surprise": 1}}))
    assert set(law["forms"]) == set(forms.EQUATIONS) and law["winner"] in law["forms"]
    assert set(law["holdouts"]) == {"largest model", "last step", "far corner"}
    assert [len(h["observed"]) for h in law["holdouts"].values()] == [5, 5, 4]
    assert set(law["sensitivity"]) == {"total", "nonembedding", "after warm-up"}
    assert law["sensitivity"]["after warm-up"]["n"] == 20
    assert [r["delta"] for r in law["robust"]] == [1e-4, 1e-3, 1e-2]
    assert law["bootstrap"]["kind"] == "chunks" and len(law["samples"]) == law["bootstrap"]["draws"] == 200
    assert [end["a"] for end in law["at_ends_of_a"]] == [law["profile"]["a"][end] for end in ("low", "high")]
    assert len(law["profile_curve"]["alpha"]) == len(law["profile_curve"]["a"]) == 60


def test_nonembedding_parameters_scale_b_and_leave_the_exponents(assessed):
    total, other = (assessed[0]["sensitivity"][kind]["coefficients"] for kind in ("total", "nonembedding"))
    assert other["alpha"]["value"] == pytest.approx(total["alpha"]["value"], rel=1e-4)
    assert other["b"]["value"] == pytest.approx(total["b"]["value"] * 0.8 ** total["alpha"]["value"], rel=1e-3)


def test_chunks_common_to_all_cells_move_the_constant_and_not_the_exponents(assessed):
    """The chunks of the fixture differ by much in common (0.01) and little by cell (0.003)."""
    law, chunks = assessed
    alone = bootstrap.over_chunks(law, chunks - chunks.mean(axis=0) + chunks.mean(), block=1)
    width = {name: span["high"] - span["low"] for name, span in law["bootstrap"]["coefficients"].items()}
    width_alone = {name: span["high"] - span["low"] for name, span in alone["coefficients"].items()}
    assert width["a"] > 1.2 * width_alone["a"]
    assert width["beta"] == pytest.approx(width_alone["beta"], rel=0.5)
    for name in ("a", "alpha", "beta"):
        span = law["bootstrap"]["coefficients"][name]
        assert span["low"] < law["coefficients"][name]["value"] < span["high"]


def test_blocks_widen_intervals_of_chunks_that_resemble_their_neighbours():
    rng = np.random.default_rng(0)
    common = np.repeat(rng.normal(size=16), 8) * 0.02
    chunks = planted(noise=0.0005)[:, None] + common
    law = fitting.fit(P, S, chunks.mean(axis=1))
    widths = []
    for block in (1, 8):
        span = bootstrap.over_chunks(law, chunks, block=block)["coefficients"]["a"]
        widths.append(span["high"] - span["low"])
    assert widths[1] > 1.5 * widths[0]


def test_draws_are_of_files_where_chunks_come_from_several():
    """Ten files of eight chunks that differ by file: an interval over files says so, one over chunks does not."""
    files = np.repeat(np.arange(10), 8)
    common = np.random.default_rng(0).normal(size=10)[files] * 0.02
    chunks = planted(noise=0.0005)[:, None] + common
    law = fitting.fit(P, S, chunks.mean(axis=1))
    by_file, by_chunk = bootstrap.over_chunks(law, chunks, files), bootstrap.over_chunks(law, chunks, block=1)
    assert (by_file["kind"], by_file["block"], by_chunk["kind"], by_chunk["block"]) == ("files", None, "chunks", 1)
    width, narrow = (np.ptp(list(b["coefficients"]["a"].values())) for b in (by_file, by_chunk))
    assert width > 1.8 * narrow


def test_the_bootstrap_repeats_and_refuses_other_shapes(assessed):
    law, chunks = assessed
    assert bootstrap.over_chunks(law, chunks, draws=5) == bootstrap.over_chunks(law, chunks, draws=5)
    assert bootstrap.over_cells(law, draws=5) == bootstrap.over_cells(law, draws=5)
    with pytest.raises(InputError, match=r"shape \(24, 64\), needs \[25 cells"):
        bootstrap.over_chunks(law, chunks[:24])


def test_wild_draws_spread_as_the_standard_errors_say():
    law = fitting.fit(P, S, planted(noise=0.0003))
    spread = np.std([row[2] for row in bootstrap.over_cells(law)["samples"]])
    assert spread == pytest.approx(law["coefficients"]["alpha"]["stderr"], rel=0.4)


def test_the_form_that_was_planted_wins_and_predicts_what_was_held_out():
    for form, c in (("additive", {}), ("coupled", COUPLED)):
        found = model_selection.compare(P, S, planted(form, noise=0.0003, **c))
        assert found["winner"] == form
        other = "coupled" if form == "additive" else "additive"
        if form == "coupled":  # which holds the additive form as k = 1, so that the reverse need not be
            assert found["forms"][form]["loo_rmse"] < 0.5 * found["forms"][other]["loo_rmse"]
            for held in found["holdouts"].values():
                assert held["rmse"][form] < 0.5 * held["rmse"][other]


def test_leave_one_out_is_what_refitting_without_each_cell_gives():
    ratio = planted(noise=0.002)
    law = fitting.fit(P, S, ratio)
    errors = []
    for i in range(len(P)):
        rest = np.arange(len(P)) != i
        errors.append(fitting.predict(fitting.fit(P[rest], S[rest], ratio[rest]), P[i], S[i]) - ratio[i])
    assert model_selection.leave_one_out(law) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.02)


def test_lack_of_fit_tells_a_law_that_does_not_add_up():
    additive = model_selection.lack_of_fit(fitting.fit(P, S, planted()))
    coupled = model_selection.lack_of_fit(fitting.fit(P, S, planted("coupled", **COUPLED)))
    assert additive["p_additive"] > 0.05 > 1e-3 > coupled["p_additive"]
    assert coupled["smallest_error"] > 3 * additive["smallest_error"]
    assert model_selection.lack_of_fit(fitting.fit(P, S, planted(noise=0)))["p_law"] is None


def test_a_small_table_has_no_whole_row_to_hold_out():
    few = np.isin(P, np.unique(P)[:3]) & np.isin(S, np.unique(S)[:3])
    found = model_selection.compare(P[few], S[few], planted()[few])
    assert set(found["holdouts"]) <= {"far corner"} and "additive" in found["forms"]


def test_draws_answer_for_themselves(assessed):
    law, _ = assessed
    drawn = bootstrap.responses(law, np.array([4e5, 1e6]), 300.0)
    assert drawn.shape == (200, 2)
    a, b, alpha, c, beta = law["samples"][7]
    assert drawn[7, 1] == pytest.approx(a + b * 1e6**-alpha + c * 300**-beta)


def test_the_assessment_of_a_law_in_training_alone(tmp_path):
    """Bootstrap, ends of a, and the other counts of parameters follow the term that the data support."""
    chunks = planted(noise=0, b=1e-9)[:, None] + 0.01 * np.random.default_rng(1).normal(size=(25, 32))
    law = model_selection.assess(table(chunks.mean(axis=1)), "cr", chunks, warmup=100)
    schema = yaml.safe_load((Path(fitting.__file__).parents[2] / "schemas" / "law.schema.yaml").read_text())
    Draft202012Validator(schema).validate({"lossless": law})
    alone = law["supported"]
    assert law["verdict"] == "law in training only" and len(alone["samples"]) == 200
    assert set(alone["bootstrap"]["coefficients"]) == {"a", "c", "beta"}
    assert [end["a"] for end in alone["at_ends_of_a"]] == [alone["profile"]["a"][end] for end in ("low", "high")]
    squares = [np.sum((forms.evaluate("training-only", end, P, S) - alone["ratio"]) ** 2)
               for end in alone["at_ends_of_a"]]  # fmt: skip
    assert squares == pytest.approx([squares[0]] * 2, rel=1e-3) and squares[0] > alone["objective"]
    assert law["sensitivity"]["nonembedding"]["supported"]["form"] == "training-only"
    assert "additive (law in training only)" in formatting.markdown("text", {"lossless": law})


def test_the_tables_of_coefficients(assessed):
    found = {"lossless": assessed[0]}
    markdown, latex = formatting.markdown("text", found).splitlines(), formatting.latex("text", found)
    assert len(markdown) == 2 + len(forms.EQUATIONS) and len({line.count("|") for line in markdown}) == 1
    assert "(best)" in "".join(markdown) and markdown[2].startswith("| lossless | additive")
    bound = fitting.fit(P, S, planted(a=0.0) - 0.01)
    bound |= {"forms": {"additive": bound | {"loo_rmse": 0.1}}, "winner": "additive"}
    assert "additive (best) (a = 0) |" in formatting.markdown("text", {"lossless": bound})
    assert latex.count(r"\\") == 1 + len(forms.EQUATIONS) and r"$\pm$" in latex and "±" not in latex


# --- the published cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["text", "image", "speech"])
def test_the_published_exponents_of_size_are_hardly_known(modality):
    cells = published("cells_2025.csv").query("modality == @modality")
    law = fitting.fit(cells["model"].str.removeprefix("pythia-").map(NOMINAL), cells["step"], cells["cr_mean"])
    span = law["profile"]["alpha"]
    if modality == "text":
        assert span["low"] < 0.15 and (span["high"] is None or span["high"] > 0.6)
    else:
        assert span["high_unbounded"] and (span["low_unbounded"] or span["low"] < 0.01)
    wild = bootstrap.over_cells(law)["coefficients"]["alpha"]
    assert wild["high"] - wild["low"] > 0.4


def test_the_published_text_cells_are_coupled_and_not_additive():
    cells = published("cells_2025.csv").query("modality == 'text'")
    size = cells["model"].str.removeprefix("pythia-").map(NOMINAL)
    found = model_selection.compare(size, cells["step"], cells["cr_mean"])
    assert found["winner"] == "coupled"
    assert found["forms"]["additive"]["aicc"] - found["forms"]["coupled"]["aicc"] > 30
    assert found["forms"]["coupled"]["loo_rmse"] < 0.5 * found["forms"]["additive"]["loo_rmse"]
    lack = model_selection.lack_of_fit(fitting.fit(size, cells["step"], cells["cr_mean"]))
    assert lack["smallest_error"] > 0.01 and lack["p_additive"] < 0.01


def test_larger_models_are_predicted_from_smaller_ones():
    """Fitted up to 1.4B, asked for 2.8B to 12B: the coupled form errs less than half as much."""
    cells = published("cells_2026.csv").query("modality == 'text' and model.str.startswith('pythia')")
    size = cells["model"].str.removeprefix("pythia-").map(NOMINAL).to_numpy()
    small, error = size <= 1.4e9, {}
    for form in ("additive", "coupled"):
        law = fitting.fit(size[small], cells["step"][small], cells["cr_mean"][small], form=form)
        missed = fitting.predict(law, size[~small], cells["step"][~small]) - cells["cr_mean"][~small]
        error[form] = float(np.sqrt(np.mean(missed**2)))
    assert error == pytest.approx({"additive": 0.0145, "coupled": 0.0056}, abs=1e-4)


@pytest.mark.slow
def test_profile_intervals_cover_what_was_planted():
    """500 tables of an identified law at the study's shape; an unbounded end counts as covering."""
    rng, inside = np.random.default_rng(0), {"a": 0, "alpha": 0, "beta": 0}
    truth = forms.evaluate("additive", SHARP, P, S)
    for _ in range(500):
        law = fitting.fit(P, S, truth + 0.001 * rng.normal(size=len(P)))
        for name, span in law["profile"].items():
            low = -np.inf if span["low_unbounded"] else span["low"]
            high = np.inf if span["high_unbounded"] else span["high"]
            inside[name] += low <= SHARP[name] <= high
    assert all(0.92 <= count / 500 <= 0.98 for count in inside.values()), inside


@pytest.mark.slow
def test_an_exponent_that_is_not_identified_has_an_unbounded_interval():
    rng, unbounded = np.random.default_rng(1), 0
    truth = forms.evaluate("additive", SHARP | {"b": 0.02, "alpha": 0.3}, P, S)
    for _ in range(100):
        span = fitting.fit(P, S, truth + 0.02 * rng.normal(size=len(P)))["profile"]["alpha"]
        unbounded += span["low_unbounded"] or span["high_unbounded"]
    assert unbounded >= 95
