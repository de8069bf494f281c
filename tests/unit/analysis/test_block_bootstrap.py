"""Intervals over chunks: those of one file in blocks of neighbours, those of several by file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw.analysis import block_bootstrap


def planted(rng, files, chunks, between, within):
    """Ratios of `chunks` chunks of each of `files` files around 1, and their files: standard deviations as given."""
    means = 1 + between * rng.standard_normal(files)
    values = np.repeat(means, chunks) + within * rng.standard_normal(files * chunks)
    return values, np.repeat(np.arange(files), chunks)


def test_chunks_of_one_file_are_drawn_in_blocks_of_neighbours_in_a_circle():
    for drawn in block_bootstrap.redraws(["enwik8"] * 64, draws=50):
        blocks = drawn.reshape(8, 8)
        assert ((blocks - blocks[:, :1]) % 64 == np.arange(8)).all()
    assert block_bootstrap.block_of(["enwik8"] * 64) == 8 and block_bootstrap.block_of(["enwik8"] * 3) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=40).filter(lambda files: len(set(files)) >= 4))
def test_of_several_files_whole_ones_are_drawn(files):
    sizes = np.bincount(files)
    assert block_bootstrap.block_of(files) is None
    for drawn in block_bootstrap.redraws(files, draws=20):
        times = np.bincount(np.array(files)[drawn], minlength=len(sizes))
        assert (times[sizes > 0] % sizes[sizes > 0] == 0).all()
        assert (times[sizes > 0] // sizes[sizes > 0]).sum() == len(set(files)) - 1


def test_two_or_three_files_are_too_few_to_draw_from():
    for count in (2, 3):
        assert block_bootstrap.block_of(np.repeat(np.arange(count), 40)) == 8


def test_every_chunk_is_as_likely_as_any_other():
    for files, share in ((["one"] * 40, 1), (np.repeat(np.arange(8), 5), 7 / 8)):
        drawn = np.concatenate(list(block_bootstrap.redraws(files, draws=4000)))
        assert np.bincount(drawn) == pytest.approx(np.full(40, 4000 * share), rel=0.12)


def test_means_of_draws_of_files_spread_as_means_of_samples_do():
    rng = np.random.default_rng(2)
    spreads = []
    for _ in range(200):
        values, files = planted(rng, 5, 6, 0.05, 0.05)
        spreads.append(np.var([values[drawn].mean() for drawn in block_bootstrap.redraws(files)]))
    assert np.mean(spreads) == pytest.approx(0.05**2 / 5 + 0.05**2 / 30, rel=0.15)


def test_files_that_differ_widen_the_interval_and_names_alone_do_not():
    rng = np.random.default_rng(1)
    same, files = planted(rng, files=30, chunks=10, between=0.0, within=0.1)
    other, _ = planted(rng, files=30, chunks=10, between=0.1, within=0.1)
    together = ["one"] * 300
    widths = block_bootstrap.half_width, lambda *of: np.ptp(block_bootstrap.mean_interval(*of)) / 2
    for width in widths:
        assert width(same, files) == pytest.approx(width(same, together), rel=0.35)
        assert width(other, files) == pytest.approx(2 * (0.1**2 / 30 + 0.1**2 / 300) ** 0.5, rel=0.3)
    assert widths[0](other, files) > 1.8 * widths[0](other, together)  # over chunks, as if each were another file
    assert widths[1](other, files) > 1.15 * widths[1](other, together)  # blocks of neighbours cut files in two


@pytest.mark.parametrize("files, between", [(5, 0.05), (30, 0.05), (30, 0.0)])
def test_the_interval_of_a_mean_holds_it_in_95_of_100_samples_of_files(files, between):
    rng = np.random.default_rng(files)
    held = []
    for _ in range(1500):
        values, names = planted(rng, files, 6, between, 0.05)
        held.append(abs(values.mean() - 1) <= block_bootstrap.half_width(values, names))
    assert 0.93 < np.mean(held) < 0.97  # 1.96 standard errors over the chunks hold it in about 60 where files differ


def test_over_chunks_of_one_file_it_is_1_96_standard_errors():
    values = np.random.default_rng(0).standard_normal(50)
    expected = 1.96 * values.std(ddof=1) / 50**0.5
    assert block_bootstrap.half_width(values, ["one"] * 50) == pytest.approx(expected, rel=1e-12)
