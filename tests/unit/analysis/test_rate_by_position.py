"""The marginal curve: a planted fall comes back, and one that is not there is called that."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw.analysis import rate_by_position
from bitlaw.compression import accounting
from cell_files import write_cell
from chunk_rows import rows_of

FIRST, LAST = (edge[1:-1].astype(float) for edge in rate_by_position.edges(2048))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.5, 8), st.floats(0.5, 12), st.floats(0.15, 2.5))
def test_a_planted_fall_is_recovered(h, a, gamma):
    exact = [np.mean(np.arange(*bin, 1 / 256) ** -gamma) for bin in zip(FIRST[:6], LAST[:6], strict=True)]
    np.testing.assert_allclose(rate_by_position.shape(FIRST, LAST, gamma)[:6], exact, rtol=6e-3)
    rate = h + a * rate_by_position.shape(FIRST, LAST, gamma)
    found = rate_by_position.fit(rate[None], np.ones(len(rate)), FIRST, LAST)[0]
    assert found[2] == pytest.approx(gamma, rel=0.012)
    assert found[:2] == pytest.approx([h, a], rel=0.12)


def test_weights_decide_where_a_curve_must_be_met():
    rate = 2 + 3 * rate_by_position.shape(FIRST, LAST, 0.7)
    bent = rate.copy()
    bent[0] += 2
    errors = np.ones(len(rate))
    blind = rate_by_position.fit(bent[None], np.where(np.arange(len(rate)) == 0, 1e3, errors), FIRST, LAST)[0]
    assert blind == pytest.approx([2, 3, 0.7], rel=0.03)
    assert rate_by_position.fit(bent[None], errors, FIRST, LAST)[0, 2] > 0.8


def test_the_far_rate_is_never_negative():
    rate = 5 - 0.4 * np.log2(FIRST)
    h, a, gamma = rate_by_position.fit(rate[None], np.ones(len(rate)), FIRST, LAST)[0]
    assert h == 0 and a > 0 and gamma > 0.02


def noisy(rate, noise, draws=200):
    return rate + noise * np.random.default_rng(1).normal(size=(draws, len(rate)))


def test_a_known_fall_has_an_interval_that_holds_it_and_no_note():
    rate = 2 + 4 * rate_by_position.shape(FIRST, LAST, 0.6)
    law = rate_by_position.law(rate, noisy(rate, 0.02), FIRST, LAST)
    assert law["note"] == "" and law["rmse"] < 1e-2
    for name, value in (("h", 2), ("A", 4), ("gamma", 0.6)):
        assert law[f"{name}_low"] <= value <= law[f"{name}_high"]


def test_no_fall_is_called_that():
    rate = np.full(len(FIRST), 9.0)
    law = rate_by_position.law(noisy(rate, 0.1, 1)[0], noisy(rate, 0.1), FIRST, LAST)
    assert "the interval of A holds 0" in law["note"] and "gamma has no end" in law["note"]


def test_one_chunk_has_a_curve_and_no_spread(tmp_path):
    cell = write_cell(tmp_path, "text", "m", 5, rows_of([3], 2048))
    curves, laws = rate_by_position.tables([cell])
    assert (curves["low"] == curves["high"]).all() and np.isfinite(laws["gamma"]).all()


def test_tables_say_what_the_rows_hold(tmp_path):
    rows = rows_of(range(16), 1000)
    curves, laws = rate_by_position.tables([write_cell(tmp_path, "text", "m", 5, rows)])
    bins = np.sum([row["bits_by_position"] for row in rows], 0), np.sum([row["bytes_by_position"] for row in rows], 0)
    for row in curves.itertuples():
        at = accounting.POSITION_EDGES.index(row.first_byte)
        assert row.bits_per_byte == pytest.approx(bins[0][at] / bins[1][at]) and row.bytes == bins[1][at]
        assert row.low <= row.bits_per_byte <= row.high
    assert curves["last_byte"].max() == 1000 and (curves["first_byte"].diff().dropna() > 0).all()
    assert len(laws) == 1 and {"h", "A", "gamma", "rmse", "note"} <= set(laws.columns)


def test_too_few_bins_are_no_law(tmp_path):
    row = rows_of([1], 2048)[0]
    for name in ("bits_by_position", "bytes_by_position", "tokens_by_position"):
        row[name] = [0] * 8 + row[name][8:11] + [0, 0]
    _, laws = rate_by_position.tables([write_cell(tmp_path, "text", "m", 5, [row])])
    assert laws["note"].tolist() == ["3 position bins, 4 are needed"] and "gamma" not in laws
