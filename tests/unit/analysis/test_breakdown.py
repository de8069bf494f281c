"""Tables of where the bits go, and their pictures."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw import InputError
from bitlaw.analysis import breakdown, cell_table, prior_and_context, rate_by_position
from bitlaw.analysis.classical import COLUMN_NAMES
from bitlaw.compression import accounting
from bitlaw.figures import audit, context, position, scaling
from chunk_rows import rows_of

SIZES = {"a": 1000, "b": 4000}
STEPS = (10, 100)
MODALITIES = ("random", "text")


def cells_of(folder):
    """Cells of two models, steps and modalities as files; their json paths."""
    paths = []
    for seed, (modality, model, step) in enumerate((m, a, s) for m in MODALITIES for a in SIZES for s in STEPS):
        scale = {"text": 4.0, "random": 12.0}[modality] - np.log10(step)
        rows = rows_of(range(40 * seed, 40 * seed + 12), 800, scale=scale, top=0.5 if modality == "random" else 0.01)
        path = folder / "cells" / modality / model / f"step{step}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([row | {"file": modality} for row in rows]), path)
        about = {"modality": modality, "model": model, "step": step, "params_total": SIZES[model], "mode": "exact"}
        about |= accounting.cell(rows)
        about |= {"stream_bits": int(sum(row["bits_stream"] for row in rows))}
        about |= {"decode_check": {"chunks": 1, "passed": True, "one_shot_bytes": 90, "steps_bytes": 90}}
        paths.append(path.with_suffix(".json"))
        paths[-1].write_text(json.dumps(about))
    return paths


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return cells_of(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def cells(paths):
    return pd.DataFrame([json.loads(path.read_text()) for path in paths])


@pytest.fixture(scope="module")
def classical():
    rows = [("text", "gzip", "chunk", 0.5), ("text", "gzip", "whole", 0.4), ("text", "ppmd", "chunk", 0.45)]
    rows += [("text", "ppmd", "whole", 0.3), ("random", "gzip", "chunk", 1.01), ("random", "gzip", "whole", 1.0)]
    return pd.DataFrame(rows, columns=["modality", "compressor", "scope", "ratio"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), st.floats(0.01, 40), st.sampled_from([0.0, 0.5]))
def test_the_audits_row_adds_up(seeds, scale, top):
    cell = accounting.cell(rows_of(seeds, 700, scale, top))
    table = breakdown.audit(pd.DataFrame([cell | dict.fromkeys(cell_table.LABELS, 1)]))
    assert list(table.columns) == [*cell_table.LABELS, "published", *accounting.AUDIT_TERMS, "lossless"]
    row = table.iloc[0]
    if cell["dropped"] < cell["chunks"]:
        assert row["published"] + row[list(accounting.AUDIT_TERMS)].sum() == pytest.approx(row["lossless"], abs=1e-12)
    assert row["lossless"] == cell["cr_lossless"]


def test_the_codec_table_says_what_lossless_costs(paths):
    table = breakdown.codec(paths)
    for path, row in zip(paths, table.itertuples(), strict=True):
        chunks = pq.read_table(path.with_suffix(".parquet")).to_pandas()
        ratio = chunks["bits_stream"] / 6400
        ideal = chunks["bits_stream"] - chunks["bits_termination"] - chunks["bits_container"]
        assert row.ideal_bits == pytest.approx(ideal.sum(), abs=1e-6)
        assert row.overhead_bits_per_token == pytest.approx((row.stream_bits - ideal.sum()) / chunks["tokens"].sum())
        assert (row.ratio_min, row.ratio_max) == (ratio.min(), ratio.max()) and row.worst_chunk == ratio.idxmax()
        assert (row.ratio_median, row.ratio_p95) == pytest.approx(tuple(np.percentile(ratio, [50, 95])))
        assert row.decode_check == "passed" and row.chunks_decoded == 1


def test_the_codec_table_shows_the_sizes_of_both_passes(tmp_path):
    path = cells_of(tmp_path)[0]
    about = json.loads(path.read_text())
    check = about["decode_check"] | {"one_shot_bytes": 1234, "steps_bytes": 1235}
    path.write_text(json.dumps(about | {"decode_check": check, "mode": "lockstep"}))
    (row,) = breakdown.codec([path]).itertuples()
    assert (row.one_shot_bits, row.steps_bits, row.mode) == (9872, 9880, "lockstep")


def test_classical_compressors_stand_among_the_models(cells, classical):
    lines = breakdown.beside_models(classical, cells, "text").splitlines()
    last = cells[(cells["modality"] == "text") & (cells["step"] == 100)].set_index("model")["cr_lossless"]
    assert len(lines) == 6 and "| ppmd |  | 0.450 | 0.300 |" in lines and "| gzip |  | 0.500 | 0.400 |" in lines
    assert f"| b, step 100 | 4,000 | {last['b']:.3f} |  |" in lines and "step 10 " not in "".join(lines)
    ratios = [float(line.split("|")[3]) for line in lines[2:]]
    assert ratios == sorted(ratios)


def test_a_failed_compressor_is_listed_as_that_and_is_no_line_of_the_figure(cells, classical, tmp_path):
    whole = (classical["compressor"] == "ppmd") & (classical["modality"] == "text")
    failed = classical.assign(ratio=classical["ratio"].mask(whole))
    lines = breakdown.beside_models(failed, cells, "text").splitlines()
    assert lines[-1] == "| ppmd |  | failed | failed |" and "| gzip |  | 0.500 | 0.400 |" in lines
    scaling.draw(cells, {}, {"svg": tmp_path / "s.svg"}, classical=failed)
    everything = "\n".join(words(tmp_path / "s.svg"))
    assert "gzip 0.50" in everything and "ppmd" not in everything
    for none in (failed.iloc[:0], failed.assign(ratio=np.nan)):
        breakdown.beside_models(none, cells, "text")
        scaling.draw(cells, {}, {"svg": tmp_path / "none.svg"}, classical=none)
        assert "gzip" not in "\n".join(words(tmp_path / "none.svg"))
    assert len(breakdown.beside_models(failed.iloc[:0], cells, "text").splitlines()) == 4


def test_sizes_stay_whole_numbers_beside_a_failed_one(tmp_path):
    """From the job's own file, by way of the script's writer, to the table."""
    rows = [dict.fromkeys(COLUMN_NAMES, "x") | {"bytes_out": size, "ratio": None} for size in (1234, None)]
    with open(tmp_path / "text.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMN_NAMES)
        writer.writeheader()
        writer.writerows(rows)
    cell_table.write_csv(breakdown.read_classical([tmp_path / "text.csv"] * 2), tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text().splitlines()[1:3] == ["x,x,x,x,x,x,1234,,x", "x,x,x,x,x,x,,,x"]


def words(svg):
    return re.findall(r"<!-- (.*?) -->", svg.read_text(), flags=re.DOTALL)


def test_the_waterfall_shows_every_term_of_the_largest_models_last_step(cells, tmp_path):
    table = breakdown.audit(cells)
    out = {kind: tmp_path / f"audit.{kind}" for kind in ("svg", "pdf", "png")}
    audit.draw(table, out)
    seen = words(out["svg"])
    row = table[(table["modality"] == "text") & (table["model"] == "b") & (table["step"] == 100)].iloc[0]
    null = table[(table["modality"] == "random") & (table["model"] == "b") & (table["step"] == 100)].iloc[0]
    assert {f"{row['published']:.3f}", f"{row['lossless']:.3f}", f"{null['lossless']:.3f}"} <= set(seen)
    assert f"{null['published']:.3f} random bytes" in seen and f"{null['audit_top_bits']:+.3f}" in seen
    assert {"text", "b, step 100", "top bits", "raw bytes"} <= set(seen)
    assert "causal int8" not in seen  # one pass gives both numbers: no such term
    again = {"svg": tmp_path / "again.svg"}
    audit.draw(table.assign(audit_quantisation=0.01), again)
    assert "causal int8" in words(again["svg"])
    assert out["pdf"].read_bytes().startswith(b"%PDF")


def test_a_modality_of_which_no_chunk_is_kept_still_has_its_known_terms(cells, tmp_path):
    table = breakdown.audit(cells)
    gone = ["published", *accounting.AUDIT_TERMS[:5]]
    table.loc[table["modality"] == "text", gone] = np.nan
    audit.draw(table, {"svg": tmp_path / "a.svg"})
    assert "no chunk kept" in words(tmp_path / "a.svg")
    with pytest.raises(InputError, match="empty"):
        audit.draw(table.iloc[:0], {"svg": tmp_path / "b.svg"})
    assert not (tmp_path / "b.svg").exists()


def test_the_figure_of_context_shows_parts_sizes_and_controls(paths, tmp_path):
    table = prior_and_context.table(paths)
    out = {kind: tmp_path / f"context.{kind}" for kind in ("svg", "pdf", "png")}
    context.draw(table, out)
    seen = words(out["svg"])
    assert {"text", "random bytes, all sizes", "prior, bits a byte", "context, bits a byte"} <= set(seen)
    assert "random" not in seen  # it lies behind the others, and has no panel
    assert {"1000", "4000", "parameters"} <= set(seen) and "bytes shuffled" not in seen
    more = pd.concat([table, table.assign(**{"pass": "shuffled"})])
    gains = table.drop_duplicates(list(cell_table.LABELS))[list(cell_table.LABELS)]
    gains = gains.assign(**{f"{part}{end}": 0.1 for part in ("domain", "file") for end in ("", "_low", "_high")})
    context.draw(more, {"svg": tmp_path / "more.svg"}, gains)
    everything = "\n".join(words(tmp_path / "more.svg"))
    assert "bytes shuffled" in everything and "second half, bits a byte" in everything
    with pytest.raises(InputError, match="empty"):
        context.draw(table.iloc[:0], {"svg": tmp_path / "b.svg"})


def test_the_figure_of_positions_draws_falls_and_says_which_are_not_known(paths, tmp_path):
    curves, laws = rate_by_position.tables(paths)
    position.draw(curves, laws, {"svg": tmp_path / "p.svg"})
    seen = words(tmp_path / "p.svg")
    assert {"text", "random (control)", "byte of the chunk", "bits a byte, step 100"} <= set(seen)
    assert "fall not known" in seen


def test_the_combined_figure_has_a_line_for_the_best_classical_compressor(cells, classical, tmp_path):
    scaling.draw(cells, {}, {"svg": tmp_path / "s.svg"}, classical=classical)
    everything = "\n".join(words(tmp_path / "s.svg"))
    assert everything.count("ppmd 0.45") == 1 and "gzip 1.01" in everything and "gzip 0.50" not in everything
