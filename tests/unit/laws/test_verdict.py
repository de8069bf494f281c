"""Which terms of a law the data support: planted laws of every kind, steps, rises, and what the shipped tables give."""

import json

import numpy as np
import pandas as pd
import pytest

from bitlaw.laws import fitting, formatting, profile_intervals
from bitlaw.laws.estimation import Problem, estimate
from bitlaw.laws.forms import SIZE, TRAINING
from bitlaw.laws.verdict import BOTH, NONE, ONLY, is_identified, is_law, supported
from repository import ROOT

P, S = (grid.ravel() for grid in np.meshgrid([64e3, 160e3, 400e3, 900e3, 1.9e6], [75.0, 150, 300, 600, 1200]))
NOMINAL = {"pythia-70m": 70e6, "pythia-160m": 160e6, "pythia-410m": 410e6, "pythia-1b": 1e9, "pythia-1.4b": 1.4e9}
NOISE = 0.005


def planted(size, training, seed=0):
    """Ratios that fall by so much over the sizes and over the steps, with scatter."""
    falls = size * (P / P.min()) ** -0.6 + training * (S / S.min()) ** -0.8
    return 0.4 + falls + NOISE * np.random.default_rng(seed).normal(size=len(P))


@pytest.mark.parametrize(
    ("size", "training", "verdict"),
    [(0.2, 0.3, BOTH), (0.2, 0.0, ONLY[SIZE]), (0.0, 0.3, ONLY[TRAINING]), (0.0, 0.0, NONE)],
)
@pytest.mark.parametrize("seed", [3])
@pytest.mark.parametrize("swapped", [False, True])
def test_each_kind_of_planted_law_is_called_what_it_is(size, training, verdict, seed, swapped):
    axes = (S, P) if swapped else (P, S)
    if swapped and verdict in ONLY.values():
        verdict = next(other for other in ONLY.values() if other != verdict)
    law = fitting.fit(*axes, planted(size, training, seed))
    assert law["verdict"] == verdict
    assert json.loads(json.dumps(law, allow_nan=False)) == law
    assert is_law(law) == (verdict != NONE) and set(law["coefficients"]) == {"a", "b", "alpha", "c", "beta"}
    shown = formatting.describe(law)
    for term, symbol in ((SIZE, "P^-"), (TRAINING, "S^-")):
        seen = verdict in (BOTH, ONLY[term])
        assert is_identified(law, term.exponent) == seen
        if verdict != NONE:
            assert (symbol in shown) == seen
            assert (f"no dependence on {term.variable} seen" in shown) != seen
    assert shown.startswith("no law: ratio is constant within scatter") == (verdict == NONE)


def test_the_refit_is_that_of_the_supported_term_and_lies_beside_the_full_one():
    law = fitting.fit(P, S, planted(0.0, 0.3))
    alone = law["supported"]
    assert alone["form"] == "training-only" and set(alone["coefficients"]) == {"a", "c", "beta"}
    assert set(alone["profile"]) == {"a", "beta"} and len(alone["residuals"]) == len(P)
    assert law["objective"] <= alone["objective"] == pytest.approx(np.sum(np.square(alone["residuals"])))
    assert law["objective"] == pytest.approx(np.sum((fitting.predict(law, P, S) - law["ratio"]) ** 2))
    by_refit = profile_intervals.by_refit(Problem.of_law(alone), estimate(Problem.of_law(alone)).result)
    for name, span in alone["profile"].items():
        assert [span[end] for end in ("low", "high")] == pytest.approx(
            [by_refit[name][end] for end in ("low", "high")], rel=1e-4
        )
    assert "CR = " in formatting.written(alone) and "P" not in formatting.written(alone)
    assert "α not identified" in law["verdict_reasons"][0]


@pytest.mark.parametrize(("along", "across", "exponent"), [(P, S, "alpha"), (S, P, "beta")])
@pytest.mark.parametrize("other", [0.0, 0.2])
def test_a_step_is_a_dependence_that_no_power_describes(along, across, exponent, other):
    noise = 0.003 * np.random.default_rng(4).normal(size=len(P))
    ratio = 0.3 + 0.3 * (along == along.min()) + other * (across / across.min()) ** -0.5 + noise
    law = fitting.fit(P, S, ratio)
    assert law["verdict"] == NONE and law["supported"] is None
    assert f"({exponent} = 5 is a bound)" in law["verdict_reasons"][0]
    assert not is_identified(law, "alpha") and not is_identified(law, "beta")


@pytest.mark.parametrize(("rise", "verdict"), [(0.03, NONE), (0.0003, ONLY[TRAINING])])
def test_a_rise_is_a_dependence_only_beyond_scatter(rise, verdict):
    """What rises with size has no law in training only: the law would lack what the data show."""
    law = fitting.fit(P, S, planted(0.0, 0.3, seed=6) + rise * np.log(P / P.min()))
    assert law["verdict"] == verdict
    if verdict == NONE:
        assert "ratio rises with size at 5 of 5 steps" in law["verdict_reasons"]


def test_size_and_training_that_go_together_are_not_told_apart():
    size = np.repeat(np.geomspace(1e6, 1e9, 8), 3)
    noise = 0.005 * np.random.default_rng(1).normal(size=24)
    law = fitting.fit(size, 20 * size, 0.3 + 0.4 * (size / 1e6) ** -0.4 + noise)
    assert law["verdict"] == NONE and "cannot be told apart" in law["verdict_reasons"][0]


def test_values_that_differ_by_size_in_no_order_are_said_to():
    bumps = 0.02 * np.array([1, -1, 1, -1, 1.0])[np.searchsorted(np.unique(P), P)]
    law = fitting.fit(P, S, planted(0.0, 0.3) + bumps)
    assert law["verdict"] == ONLY[TRAINING] and law["term_tests"]["levels"]["b"] < 0.001
    assert "though values differ by it beyond scatter" in law["verdict_reasons"][0]


def test_sentences_name_another_response():
    law = fitting.fit(P, S, planted(0.0, 0.0), response="loss")
    assert law["verdict_reasons"][-1].startswith("loss is constant") and law["equation"].startswith("loss = ")
    assert "CR" not in formatting.describe(law) and "ratio" not in formatting.describe(law)


@pytest.mark.parametrize(
    ("table", "modality", "verdict"),
    [
        ("2025", "text", BOTH),
        ("2025", "image", BOTH),
        ("2025", "speech", ONLY[TRAINING]),
        ("2026", "text", BOTH),
        ("2026", "image", ONLY[TRAINING]),
        ("2026", "random_bytes", BOTH),
    ],
)
def test_the_verdicts_on_the_published_cells(table, modality, verdict):
    cells = pd.read_csv(ROOT / "data" / "published" / f"cells_{table}.csv").query("modality == @modality")
    cells = cells[cells["model"].isin(NOMINAL)]
    law = fitting.fit(cells["model"].map(NOMINAL), cells["step"], cells["cr_mean"])
    assert law["verdict"] == verdict
    assert is_identified(law, "alpha") == (modality == "text")  # image: no upper end; speech: not seen


def test_a_form_that_was_asked_for_has_no_verdict_and_is_a_law():
    law = fitting.fit(P, S, planted(0.2, 0.3), form="multiplicative")
    assert "verdict" not in law and supported(law) is law
    assert supported(None) is None and not is_law(None)


@pytest.mark.slow
def test_how_often_a_term_that_is_not_there_is_seen_and_one_that_is_there_missed():
    """60 tables of each kind: the test is at 5 %; the terms are 40 times the scatter at the first size or step."""
    kinds = {BOTH: (0.2, 0.3), ONLY[SIZE]: (0.2, 0.0), ONLY[TRAINING]: (0.0, 0.3), NONE: (0.0, 0.0)}
    for verdict, (size, training) in kinds.items():
        found = [fitting.fit(P, S, planted(size, training, seed))["verdict"] for seed in range(60)]
        share = np.mean([other == verdict for other in found])
        print(verdict, share, {other: found.count(other) for other in set(found)})
        assert share > 0.8
