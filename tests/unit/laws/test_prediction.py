"""What a law says of a new cell, and where it says nothing."""

import numpy as np
import pandas as pd
import pytest

from bitlaw import InputError
from bitlaw.laws import fitting
from bitlaw.laws.prediction import new_cell
from repository import ROOT

P, S = (grid.ravel() for grid in np.meshgrid([64e3, 160e3, 400e3, 900e3, 1.9e6], [75.0, 150, 300, 600, 1200]))
NOISE = 0.001


def truth(p, s, size=30.0):
    return 0.2 + size * p**-0.45 + 20 * s**-0.9


@pytest.fixture(scope="module")
def law():
    return fitting.fit(P, S, truth(P, S) + NOISE * np.random.default_rng(0).normal(size=len(P)))


@pytest.fixture(scope="module")
def training_only():
    return fitting.fit(P, S, truth(P, S, 0.0) + NOISE * np.random.default_rng(0).normal(size=len(P)))


def test_the_interval_widens_with_the_distance_and_says_how_far_it_is(law):
    inside, outside = new_cell(law, 4e5, 300), new_cell(law, 1e9, 3000)
    assert inside["low"] < inside["ratio"] < inside["high"] and inside["outside"] == []
    assert inside["ratio"] == pytest.approx(fitting.predict(law, 4e5, 300))
    assert outside["high"] - outside["low"] > 1.5 * (inside["high"] - inside["low"])
    assert outside["outside"][0].startswith("params 1e+09 is 526 times above the data")
    assert outside["outside"][1].startswith("steps 3000 is 2.5 times above the data")


def test_a_sharp_law_has_the_prediction_interval_of_a_linear_one(law):
    """Where the law is as good as linear the interval is t s sqrt(1 + h)."""
    at = new_cell(law, 4e5, 300)
    slopes = np.column_stack([np.ones(25), P**-0.45, np.log(P) * P**-0.45, S**-0.9, np.log(S) * S**-0.9])
    new = np.array([1, 4e5**-0.45, np.log(4e5) * 4e5**-0.45, 300**-0.9, np.log(300) * 300**-0.9])
    h = new @ np.linalg.inv(slopes.T @ slopes) @ new
    half = 2.086 * np.sqrt(law["objective"] / 20 * (1 + h))  # Student's 97.5 % point for 20 degrees of freedom
    assert (at["high"] - at["low"]) / (2 * half) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("params", "steps"), [(4e5, 300), (8e6, 2400)])
def test_new_cells_lie_within_at_the_nominal_rate(params, steps):
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        law = fitting.fit(P, S, truth(P, S) + NOISE * rng.normal(size=len(P)))
        said = new_cell(law, params, steps)
        inside += said["low"] <= truth(params, steps) + NOISE * rng.normal() <= said["high"]
    assert inside / 40 >= 0.82  # 0.95 ± 0.034


def test_a_law_in_training_alone_predicts_within_its_sizes_and_refuses_beyond(training_only):
    assert training_only["verdict"] == "law in training only"
    one, other = new_cell(training_only, 64e3, 2400), new_cell(training_only, 1.9e6, 2400)
    assert one == other and len(one["outside"]) == 1
    for params, side in ((2e6, "above"), (6e4, "below")):
        with pytest.raises(InputError, match=rf"{side} the data.*no dependence on size seen.*ask within 64000 to"):
            new_cell(training_only, params, 300)


def test_an_exponent_without_the_end_that_is_needed_is_refused_and_the_other_side_is_not():
    """The published image law: α and β above something, no upper end; upwards the fall is bounded, downwards not."""
    cells = pd.read_csv(ROOT / "data" / "published" / "cells_2025.csv").query("modality == 'image'")
    size = cells["model"].map({"pythia-70m": 70e6, "pythia-160m": 160e6, "pythia-410m": 410e6, "pythia-1b": 1e9,
                               "pythia-1.4b": 1.4e9})  # fmt: skip
    law = fitting.fit(size, cells["step"], cells["cr_mean"])
    assert law["profile"]["alpha"]["high_unbounded"] and not law["profile"]["alpha"]["low_unbounded"]
    assert new_cell(law, 12e9, 143000)["high"] is not None
    with pytest.raises(InputError, match="params 1e.07 is 7 times below.*interval of α has no upper end; ask within"):
        new_cell(law, 1e7, 143000)
    law["profile"]["alpha"] |= {"low": None, "low_unbounded": True}
    with pytest.raises(InputError, match="above the data.*interval of α has no lower end; ask within"):
        new_cell(law, 12e9, 143000)


def test_no_law_predicts_nothing():
    law = fitting.fit(P, S, 1.2 + NOISE * np.random.default_rng(0).normal(size=len(P)))
    with pytest.raises(InputError, match="no law: ratio is constant within scatter.*nothing to predict from"):
        new_cell(law, 4e5, 300)


def test_forms_and_losses_without_such_an_interval(law):
    data = np.array(law["ratio"])
    robust = fitting.fit(P, S, data, loss="huber", log=True)
    said = new_cell(robust, 4e5, 300)
    assert said["low"] is None and said["ratio"] == pytest.approx(truth(4e5, 300), abs=0.003)
    for params, steps in ((-1, 300), (4e5, float("inf")), (float("nan"), 300)):
        with pytest.raises(InputError, match="must be positive and finite"):
            new_cell(law, params, steps)
