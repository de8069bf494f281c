"""The split of a raw byte's 8 bits, intervals over chunks, and the passes that control what context buys."""

import hashlib
import json
import math
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw import InputError
from bitlaw.analysis import block_bootstrap, control_passes, prior_and_context
from bitlaw.compression import accounting, scoring
from bitlaw.data import seven_bit, shards, tokens
from bitlaw.models import checkpoint
from cell_files import write_cell
from chunk_rows import rows_of


def sums_of(rows):
    return prior_and_context.Sums(
        *(np.array([row[c] for row in rows], float) for c in prior_and_context.SUMMED_COLUMNS),
        rows[0]["bits_first_token"],
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    st.integers(300, 2500),
    st.floats(0.01, 60),
    st.sampled_from([0.0, 0.5, 0.02]),
)
def test_the_split_adds_up_to_all_bits_but_the_coders(seeds, size, scale, top):
    rows = rows_of(seeds, size, scale, top)
    whole = prior_and_context.summed(sums_of(rows))
    cell = accounting.cell(rows)
    ideal = 8 * (cell["cr_lossless"] - cell["audit_termination"] - cell["audit_container"])
    for horizon in prior_and_context.HORIZONS:
        found = prior_and_context.split(whole, horizon)
        if whole.later_bytes[: accounting.POSITION_EDGES.index(horizon)].sum() == 0:
            assert math.isnan(found["prior"]) and math.isnan(found["F_K"])
            continue
        assert found["total"] == pytest.approx(ideal, abs=1e-11)
        assert 8 - found["total"] == pytest.approx(
            sum(found[term] for term in prior_and_context.SPLIT_TERMS), abs=1e-11
        )


def test_the_terms_are_what_their_names_say():
    """Two tokens of 2 bytes, then 1,022 of 2: the first 16 bytes cost 6 bits a token, the others 2."""
    size, uniform = 2048, 10.0
    starts = np.arange(2, size, 2)
    bins = np.searchsorted(accounting.POSITION_EDGES, starts, side="right") - 1
    bits = np.where(starts < 16, 6.0, 2.0)
    count = len(accounting.POSITION_EDGES)
    row = {
        "bytes": size,
        "bits_first_token": uniform,
        "bits_top_bits": 1.0,
        "bits_by_position": np.bincount(bins, bits, count),
        "bytes_by_position": 2 * np.bincount(bins, minlength=count),
        "tokens_by_position": np.bincount(bins, minlength=count),
    }
    found = prior_and_context.split(prior_and_context.summed(sums_of([row, row])), 16)
    later = (7 * 6 + 1016 * 2) / 2046
    assert found["F_K"] == pytest.approx(3.0)
    assert found["top_bits"] == pytest.approx(1 - 1 / 2048)
    assert found["tokeniser"] == pytest.approx(7 - 5)
    assert found["prior"] == pytest.approx(5 - 3)
    assert found["context"] == pytest.approx(3 - later)
    assert found["first_token"] == pytest.approx((2 * later - 10) / 2048)
    wider = prior_and_context.split(prior_and_context.summed(sums_of([row, row])), 32)
    assert wider["F_K"] == pytest.approx((7 * 6 + 8 * 2) / 30) and wider["tokeniser"] == found["tokeniser"]


def test_the_table_has_a_row_a_pass_and_horizon_with_intervals_over_chunks(tmp_path):
    rows, others = rows_of(range(20), 600), rows_of(range(50, 70), 600, scale=9.0)
    cell = write_cell(tmp_path, "text", "m", 5, rows)
    other = write_cell(tmp_path, "text", "m", 50, others)
    control_file = write_cell(tmp_path, "text", "m", 5, others, "controls/shuffled", **{"pass": "shuffled"})
    table = prior_and_context.table([cell, other], [control_file.with_suffix(".parquet")])
    keys = list(zip(table["step"], table["pass"], table["K"], strict=True))
    passes = [(5, "plain"), (5, "shuffled"), (50, "plain")]
    assert keys == [(*key, horizon) for key in passes for horizon in prior_and_context.HORIZONS]
    assert list(table.columns) == [
        *("modality", "model", "step", "params_total", "pass", "K", "total"),
        *prior_and_context.SPLIT_TERMS,
        *("prior_low", "prior_high", "context_low", "context_high", "F_K"),
    ]
    np.testing.assert_allclose(
        8 - table["total"], table[list(prior_and_context.SPLIT_TERMS)].sum(axis=1), rtol=0, atol=1e-11
    )
    same = [table[(table["step"] == step) & (table["pass"] == name)] for step, name in ((5, "shuffled"), (50, "plain"))]
    np.testing.assert_array_equal(same[0]["context"], same[1]["context"])
    one = table[(table["step"] == 5) & (table["pass"] == "plain") & (table["K"] == 32)].iloc[0]
    drawn = []
    for numbers in block_bootstrap.redraws(["one"] * 20):
        drawn.append(
            prior_and_context.split(prior_and_context.summed(sums_of([rows[i] for i in numbers])), 32)["context"]
        )
    assert (one["context_low"], one["context_high"]) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    assert one["context_low"] < one["context"] < one["context_high"]


def test_a_vocabulary_that_changes_between_chunks_is_refused(tmp_path):
    rows = rows_of([1, 2], 600)
    rows[1]["bits_first_token"] += 1
    with pytest.raises(ValueError, match="different vocabularies"):
        prior_and_context.read(write_cell(tmp_path, "text", "m", 5, rows).with_suffix(".parquet"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5))
def test_shuffled_chunks_keep_their_histogram_and_repeat(chunks):
    mixed = control_passes.shuffled(chunks)
    assert [Counter(chunk) for chunk in mixed] == [Counter(chunk) for chunk in chunks]
    assert mixed == control_passes.shuffled(chunks)


def test_shuffled_chunks_are_in_another_order_each():
    chunk = bytes(range(256))
    one, two = control_passes.shuffled([chunk, chunk])
    assert len({chunk, one, two}) == 3
    lag = np.abs(np.diff(np.frombuffer(one, np.uint8).astype(int)))
    assert lag.mean() == pytest.approx(256 / 3, rel=0.15)  # of a random order; 1 when in order


@pytest.mark.parametrize("count", [2, 3, 24])
def test_no_half_comes_after_its_own_chunks(count):
    before = [control_passes.other(number, count) for number in range(count)]
    assert sorted(before) == list(range(count))
    assert all(a != b for a, b in enumerate(before))


@pytest.fixture(scope="module")
def opened(neox_folder):
    tokenizer, spelling, _ = tokens.open_tokenizer(neox_folder / "tokenizer.json")
    return checkpoint.load(neox_folder), tokenizer, spelling


def test_halves_are_scored_after_what_they_are_said_to_follow(opened, passage):
    model, tokenizer, spelling = opened
    chunks = [passage.encode()[i : i + 128] for i in (0, 200, 400)]
    rows = control_passes.score("after_other", model, tokenizer, spelling, chunks, 4096)
    assert [row["pass"] for row in rows] == [f"after_{what}" for what in ("none", "other", "own") for _ in chunks]

    def ids(part):
        return tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(part)])[0]

    for number, chunk in enumerate(chunks):
        own = ids(chunk[64:])
        before = {"none": b"", "other": chunks[(number + 1) % 3][:64], "own": chunk[:64]}
        for name, first in before.items():
            whole = np.concatenate([ids(first), own]) if first else own
            (found,) = scoring.score(model, [whole], 4096)
            ideal = np.log2(found.totals.astype(float) / found.frequencies.astype(float))[len(whole) - len(own) + 1 :]
            (row,) = (row for row in rows if (row["pass"], row["chunk"]) == (f"after_{name}", number))
            assert sum(row["bits_by_position"]) == pytest.approx(ideal.sum(), rel=1e-6)
            assert row["bytes"] == 64 and row["tokens"] == len(own)
            assert row["bits_first_token"] == math.log2(model.vocabulary)
            assert sum(row["bytes_by_position"]) == 64 - len(spelling[own[0]])
    sizes = {sum(row["bits_by_position"]) for row in rows}
    assert len(sizes) == 9  # what precedes makes a difference


def test_shuffled_bytes_cost_more_than_the_passage_that_the_tokenizer_knows(opened, passage):
    model, tokenizer, spelling = opened
    rows = control_passes.score("shuffled", model, tokenizer, spelling, [passage.encode()[:512]], 4096)
    assert [row["pass"] for row in rows] == ["shuffled"]
    (plain,) = tokens.encode(tokenizer, spelling, [passage[:512]])
    assert rows[0]["bytes"] == 512 and rows[0]["tokens"] > 1.5 * len(plain)


def test_a_control_writes_what_the_tables_read(neox_folder, passage, tmp_path):
    chunks = tmp_path / "shards"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_bytes(data := (2 * passage).encode()[:1024])
    files = [{"path": "a.txt", "bytes": 1024, "sha256": hashlib.sha256(data).hexdigest()}]
    about = {"name": "s", "licence": "none", "files": files}
    (tmp_path / "source" / "source.json").write_text(json.dumps(about))
    shards.cut(tmp_path / "source", {"cut": "bytes", "sampling": "head", "chunks": 4}, 256, chunks)
    settings = {"precision": "fp32", "device": "cpu", "tokens_at_a_time": 4096}
    cell = write_cell(tmp_path, "text", "m", 5, rows_of(range(4), 256))
    paths = []
    for kind in control_passes.CONTROLS:
        paths.append(tmp_path / "controls" / kind / "text" / "m" / "step5.parquet")
        control_passes.run(kind, neox_folder, neox_folder / "tokenizer.json", chunks, paths[-1], **settings)
    named = dict.fromkeys(labels["pass"] for labels, _, _ in prior_and_context.passes([cell], paths))
    assert list(named) == ["plain", "shuffled", "after_none", "after_other", "after_own"]
    (row,) = prior_and_context.halves([cell], paths).itertuples(index=False)
    assert row.domain == pytest.approx(row.none - row.other) and row.file == pytest.approx(row.other - row.own)
    assert row.domain_low <= row.domain <= row.domain_high and (row.model, row.step) == ("m", 5)
    about = json.loads(pq.read_schema(paths[0]).metadata[b"bitlaw"])
    assert about["weights_sha256"] == checkpoint.describe(neox_folder)["weights_sha256"]


def test_a_tokenizer_of_another_model_is_refused(opened, passage):
    _, tokenizer, spelling = opened

    class Smaller:
        vocabulary = 50

    with pytest.raises(InputError, match="the model knows 50"):
        control_passes.score("shuffled", Smaller, tokenizer, spelling, [passage.encode()], 4096)
