"""What a run says at its end and along its way."""

import json
import logging
import os
import shlex
import time

import pytest

from bitlaw.report import findings
from bitlaw.runtime import logs

HEAD = "modality,model,step,cr_lossless,cr_published\n"


def found(tmp_path, rows, **options):
    (tmp_path / "cells.csv").write_text(HEAD + rows)
    return findings.finding(tmp_path / "cells.csv", **options)


CLASSICAL = """\
modality,compressor,scope,ratio,status
text,gzip,chunk,0.507,ok
text,ppmd,chunk,,failed: bad data
text,bzip2,whole,0.329,ok
image,png,chunk,0.516,ok
image,gzip,chunk,0.600,ok
"""


def test_the_best_ratio_of_each_modality_comes_first_then_the_control(tmp_path):
    text = found(
        tmp_path,
        "text,a,75,0.375,0.366\ntext,b,1200,0.257,0.248\nimage,a,75,1.345,0.672\nimage,b,300,1.104,0.545\n"
        "random,a,75,1.452,0.668\nrandom,b,1200,1.258,0.572\n",
    )
    assert text == (
        "With every bit counted, text takes 0.257 of its size (b at step 1,200), image 1.104 (b at step 300). "
        "Random bytes, which nothing can compress, take 1.26 to 1.45; "
        "0.57 to 0.67 counted as published, from which nothing can be decoded."
    )


def test_one_cell_of_a_model_is_named_once(tmp_path):
    text = found(tmp_path, "text,a,75,0.375,0.366\nimage,a,75,1.345,0.672\n")
    assert text == "With every bit counted, text takes 0.375 of its size, image 1.345, under a at step 75."


def test_an_interval_is_told_where_there_is_one(tmp_path):
    (tmp_path / "cells.csv").write_text(
        "modality,model,step,cr_lossless,cr_published,cr_lossless_ci\ntext,a,75,0.3754,0.366,0.0123\nimage,a,75,1.3,0.6,\n"
    )
    text = findings.finding(tmp_path / "cells.csv")
    assert text == "With every bit counted, text takes 0.375 ± 0.012 of its size, image 1.300, under a at step 75."


def test_beside_each_stands_the_best_classical_compressor_on_the_same_chunks(tmp_path):
    (tmp_path / "classical.csv").write_text(CLASSICAL)
    rows = "text,a,75,0.375,0.366\nimage,b,300,1.104,0.545\nspeech,b,300,1.2,0.7\n"
    text = found(tmp_path, rows, classical=tmp_path / "classical.csv")
    assert text == (
        "With every bit counted, text takes 0.375 of its size (a at step 75; gzip: 0.507), "
        "image 1.104 (b at step 300; png: 0.516), speech 1.200 (b at step 300)."
    )


def test_a_study_that_knows_published_ratios_only_says_so(tmp_path):
    text = found(tmp_path, "text,a,1000,,0.21\ntext,b,143000,,0.15\nspeech,b,143000,nan,0.4\nrandom,a,1000,,0.6\n")
    assert text == (
        "Counted as published, text takes 0.150 of its size, speech 0.400, under b at step 143,000. "
        "Random bytes, which nothing can compress, take 0.60 counted as published, from which nothing can be decoded."
    )


def test_a_control_that_is_not_compressed_is_not_said_to_be(tmp_path):
    assert found(tmp_path, "noise,a,1,1.02,1.01\n", null="noise") == (
        "Noise bytes, which nothing can compress, take 1.02."
    )


def test_a_table_without_a_ratio_finds_nothing(tmp_path):
    assert "holds no ratio" in found(tmp_path, "text,a,1,,\n")


def test_three_lines_end_a_run(tmp_path):
    (tmp_path / "tables").mkdir()
    found(tmp_path / "tables", "text,a,75,0.375,0.366\n")
    figure, page, what = findings.ending(tmp_path)
    assert figure == f"figure: {tmp_path}/figures/scaling.png" and page == f"page:   {tmp_path}/report.html"
    assert what == "found:  With every bit counted, text takes 0.375 of its size, under a at step 75."


@pytest.fixture
def cells(tmp_path):
    """Paths of four cells; the first is left from a run before and made again by this one."""
    paths = [tmp_path / f"step{step}.json" for step in range(4)]
    write(paths[0], seconds=10, ago=500)
    logs.cells_to_do(tmp_path / "run.json", map(str, paths))
    return paths


def write(path, seconds, ago=0.0):
    """A cell that took `seconds` and was finished `ago` seconds before now."""
    path.write_text(json.dumps({"seconds": seconds}))
    os.utime(path, (time.time() - ago,) * 2)


def test_cells_of_a_run_are_counted_from_its_start(cells, tmp_path, caplog):
    caplog.set_level(logging.INFO, "bitlaw")
    logs.cell_done(tmp_path / "run.json")
    assert not caplog.messages  # what is left from before is not done
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"started": run["started"] - 60}))
    write(cells[1], seconds=20, ago=20)  # began 40 s ago
    write(cells[2], seconds=15)
    logs.cell_done(tmp_path / "run.json")
    write(cells[0], seconds=1)
    write(cells[3], seconds=1)
    logs.cell_done(tmp_path / "run.json")
    assert caplog.messages == ["cell 2 of 4 done, 2 to do, about 40 s left", "cell 4 of 4 done, 0 to do"]


def test_a_cell_outside_a_noted_run_says_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "bitlaw")
    logs.cell_done(tmp_path / "run.json")
    assert not caplog.messages


def test_a_failure_ends_with_the_logs_last_lines_and_the_command_that_retries_it(tmp_path):
    log = tmp_path / "step1.log"
    log.write_text("\n".join(f"line {i}" for i in range(9)) + "\n")
    command = ["bin/snakemake", "--cores", "8", "--config", "chunks=4", "study=a b"]
    lines = logs.failure("results/x/step1.json", log, command)
    assert lines[:6] == ["failed: results/x/step1.json", *(f"    line {i}" for i in range(4, 9))]
    assert lines[6].startswith("retry:  ")
    again = shlex.split(lines[6].removeprefix("retry:"))
    assert again == ["bin/snakemake", "results/x/step1.json", "--cores", "8", "--config", "chunks=4", "study=a b"]
    assert logs.failure("a", tmp_path / "none.log", ["s"]) == ["failed: a", "    (it wrote no log)", "retry:  s a"]
