"""Ratios and audit: the study's rule re-implemented, and terms that add up to the whole difference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw.compression import accounting
from bitlaw.compression.scoring import Scores
from chunk_rows import chunk, row_of, rows_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def published_directly(lengths, precision):
    """The study's loop over tokens: p as the model's dtype has it, at least 1e-10, at most 1024 tokens."""
    bits = 0.0
    for length in lengths[1 : min(len(lengths), 1024)]:
        p = 2.0**-length
        p = float(np.float16(p)) if precision == "fp16" else torch.tensor(p).to(DTYPES[precision]).item()
        bits += -math.log2(max(p, 1e-10))
    return bits


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 200), min_size=1, max_size=50), st.sampled_from(["fp32", "bf16", "fp16"]))
def test_published_bits_are_those_of_the_studys_rule(lengths, precision):
    found = accounting.published_bits(np.array(lengths), precision)
    assert found == pytest.approx(published_directly(lengths, precision), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("count", [1, 2, 1023, 1024, 1025, 2000])
def test_published_bits_stop_at_1024_tokens_and_leave_out_the_first(precision, count):
    lengths = np.random.default_rng(count).exponential(6, count)
    found = accounting.published_bits(lengths, precision)
    assert found == pytest.approx(published_directly(lengths, precision), rel=1e-12)
    unseen = lengths.copy()
    unseen[0], unseen[1024:] = 99.0, 99.0
    assert accounting.published_bits(unseen, precision) == found
    if count > 1023:
        unseen[1023] += 1
        assert accounting.published_bits(unseen, precision) > found


def test_the_floor_is_one_in_ten_thousand_million():
    assert accounting.published_bits(np.array([0.0, 500.0]), "fp32") == pytest.approx(math.log2(1e10))
    # float16 has no number near 1e-9
    assert accounting.published_bits(np.array([0.0, 30.0]), "fp16") == pytest.approx(math.log2(1e10))
    assert accounting.published_bits(np.array([0.0, 30.0]), "bf16") == 30


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    st.integers(2, 2500),
    st.floats(0.01, 60),
    st.sampled_from([0.0, 0.5, 0.02]),
    st.sampled_from(["fp32", "bf16", "fp16"]),
)
def test_the_audit_adds_up(seeds, size, scale, top, precision):
    rows = rows_of(seeds, size, scale, top, precision)
    cell = accounting.cell(rows)
    terms = [cell[name] for name in accounting.AUDIT_TERMS]
    assert cell["chunks"] == len(seeds) and cell["dropped"] == sum(not row["kept"] for row in rows)
    if cell["dropped"] == len(seeds):
        assert np.isnan([cell["cr_published"], *terms[:5]]).all() and np.isfinite(terms[5:]).all()
    else:
        assert sum(terms) == pytest.approx(cell["cr_lossless"] - cell["cr_published"], abs=1e-12)
    assert cell["cr_lossless"] == pytest.approx(sum(r["bits_stream"] for r in rows) / (8 * size * len(rows)))
    for row in rows:
        # the coder may end under its ideal only by the zeros it need not write
        assert row["bits_termination"] <= 8 + 1e-4 * (row["tokens"] + size)
        assert row["bits_frequencies"] <= 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(2, 2500), st.floats(0, 30))
def test_another_pass_for_the_study_is_a_term_of_its_own(seeds, size, apart):
    rows, published = [], []
    for number, seed in enumerate(seeds):
        token_bytes, scores, bits, plane_bits = chunk(seed, size, 5.0, 0.0)
        first = scores.lengths[:1024]
        study = np.abs(first + apart * np.random.default_rng(seed).standard_normal(len(first)))
        rows.append(row_of(number, size, token_bytes, scores, bits, 70.25, plane_bits, "int8", study_lengths=study))
        published.append(published_directly(study, "fp16"))
    cell, kept = accounting.cell(rows), [i for i, row in enumerate(rows) if row["kept"]]
    assert [0.01 < bits / (8 * size) < 10 for bits in published] == [row["kept"] for row in rows]
    if kept:
        causal = [accounting.published_bits(chunk(seeds[i], size, 5.0, 0.0)[1].lengths, "fp16") for i in kept]
        assert cell["cr_published"] == pytest.approx(np.mean([published[i] for i in kept]) / (8 * size))
        assert cell["audit_quantisation"] == pytest.approx(np.mean(causal) / (8 * size) - cell["cr_published"])
        total = sum(cell[name] for name in accounting.AUDIT_TERMS)
        assert total == pytest.approx(cell["cr_lossless"] - cell["cr_published"], abs=1e-12)


def kept_or_not(lengths_of_each, size=100):
    rows = []
    for number, length in enumerate(lengths_of_each):
        lengths = np.full(size, float(length))
        lengths[0] = 8.0
        totals = np.full(size, 1 << 40, dtype=np.uint64)
        frequencies = np.maximum(np.exp2(40 - lengths), 1).astype(np.uint64)
        scores = Scores(np.zeros(size, np.uint64), frequencies, totals, lengths)
        bits = 8 * math.ceil(np.sum(lengths) / 8)
        rows.append(row_of(number, size, np.ones(size, int), scores, bits, 64.0, 1.0, "fp32"))
    return rows


def test_chunks_out_of_range_are_dropped_counted_and_audited():
    rows = kept_or_not([2, 0, 4, 0.01])  # of 8 bits a byte: 0.25, 0, 0.5, 0.001
    cell = accounting.cell(rows)
    assert [row["kept"] for row in rows] == [True, False, True, False] and cell["dropped"] == 2
    assert cell["cr_published"] == pytest.approx(99 * 3 / 800)
    assert cell["audit_dropped"] == pytest.approx((99 * (6.01 / 4 - 3)) / 800)
    assert sum(cell[name] for name in accounting.AUDIT_TERMS) == pytest.approx(
        cell["cr_lossless"] - cell["cr_published"]
    )


def test_with_every_chunk_dropped_the_terms_over_kept_chunks_are_nan():
    cell = accounting.cell(kept_or_not([0, 0, 0]))
    assert cell["dropped"] == cell["chunks"] == 3 and math.isfinite(cell["cr_lossless"])
    assert math.isnan(cell["cr_published"])
    assert [name for name in accounting.AUDIT_TERMS if math.isnan(cell[name])] == list(accounting.AUDIT_TERMS[:5])


def test_the_terms_are_what_their_names_say():
    lengths = np.array([8.0] + [3.0] * 1023 + [5.0] * 10)
    lengths[7] = 50.0  # past the floor
    totals = np.full(len(lengths), 1 << 40, dtype=np.uint64)
    scores = Scores(totals, np.maximum(np.exp2(40 - lengths), 1).astype(np.uint64), totals, lengths)
    row = row_of(0, 2000, np.full(1034, 2), scores, 3200, 40.0, 1.0, "fp32")
    cell = accounting.cell([row])
    bits = {name: cell[name] * 16000 for name in accounting.AUDIT_TERMS}
    assert bits["audit_quantisation"] == 0
    assert bits["audit_probabilities"] == pytest.approx(50 - math.log2(1e10))
    assert bits["audit_past_1024"] == pytest.approx(50) and bits["audit_first_token"] == pytest.approx(8)
    assert bits["audit_dropped"] == 0 and bits["audit_frequencies"] == pytest.approx(40 - 50)
    assert bits["audit_termination"] == pytest.approx(3200 - 1 - (8 + 1022 * 3 + 40 + 50))
    assert bits["audit_container"] == pytest.approx(40) and bits["audit_top_bits"] == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 3000))
def test_positions_account_for_every_token_but_the_first(seed, size):
    token_bytes, scores, *_ = chunk(seed, size, 5.0, 0.0)
    (row,) = rows_of([seed], size)
    edges = [*accounting.POSITION_EDGES, math.inf]
    expected = np.zeros((3, len(edges) - 1))
    at = int(token_bytes[0])
    for i in range(1, len(token_bytes)):
        place = next(b for b in range(len(edges) - 1) if edges[b] <= at < edges[b + 1])
        expected[:, place] += math.log2(scores.totals[i] / scores.frequencies[i]), token_bytes[i], 1
        at += int(token_bytes[i])
    assert row["bits_by_position"] == pytest.approx(expected[0].tolist())
    assert row["bytes_by_position"] == expected[1].tolist() and row["tokens_by_position"] == expected[2].tolist()


def test_chunks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="different sizes"):
        accounting.cell(rows_of([1], 50) + rows_of([2], 51))
