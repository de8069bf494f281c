"""The pipeline as a person runs it: job counts by dry run, the README's example from end to end, kills and reruns."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from repository import SNAKEMAKE, jobs, rules, run

MODELS = ["ladder-64k", "ladder-141k", "ladder-331k"]
STEPS = [75, 300, 1200]
ONE = "results/mine/cells/prose/ladder-141k/step300.json"


def test_the_embedded_study_has_exactly_these_jobs(clone):
    assert jobs(run(clone, "-n").stdout) == {
        "fetch": 4,
        "shard": 4,
        "tokenize": 4,
        "compress": 100,
        "table": 1,
        "classical": 4,
        "bits": 1,
        "context": 1,
        "bit_figures": 1,
        "benchmarks": 1,
        "page": 1,
        "fit": 4,
        "figure": 1,
        "pictures": 2,
        "laws_together": 1,
        "all": 1,
    }


def test_one_cell_by_its_path_needs_exactly_its_chain(clone):
    path = "results/embedded/cells/image/ladder-331k/step600.json"
    assert jobs(run(clone, "-n", path).stdout) == {"fetch": 1, "shard": 1, "tokenize": 1, "compress": 1}


def test_the_ladder_is_trained_by_its_own_target(clone):
    assert jobs(run(clone, "-n", "ladder").stdout) == {
        "fetch": 1,
        "ladder_tokenizer": 1,
        "ladder_model": 5,
        "ladder": 1,
    }


def test_the_published_study_compresses_nothing(clone):
    ran = run(clone, "-n", "--configfile", "workflow/studies/published.yaml")
    drawn = {"figure": 1, "pictures": 1, "laws_together": 1}
    assert jobs(ran.stdout) == {"table": 1, "fit": 3, "benchmarks": 1, "page": 1, "all": 1} | drawn


def test_the_published_cells_become_tables_and_a_law_without_a_network(clone):
    targets = ["results/published/laws/text.json", "results/published/tables/text_published.md"]
    study = ("--configfile", "workflow/studies/published.yaml")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    ran = run(clone, *targets, *study, env=environment | nowhere)
    assert ran.returncode == 0, ran.stderr
    law = json.loads((clone / targets[0]).read_text())
    assert set(law) == {"published"} and law["published"]["bootstrap"]["kind"] == "cells"
    nominal = law["published"]["sensitivity"]["nominal"]["coefficients"]
    assert nominal["alpha"]["value"] == pytest.approx(0.380, abs=0.0005)
    assert nominal["beta"]["value"] == pytest.approx(0.750, abs=0.0005)
    assert "| pythia-70m | 70,426,624 | 0.223 |" in (clone / targets[1]).read_text()


def test_the_smollm2_study_has_all_modalities_and_controls_a_page_and_no_law(clone):
    study = ("--configfile", "workflow/studies/smollm2.yaml")
    of_cells = {"fetch": 5, "gguf_model": 1, "shard": 4, "tokenize": 4, "compress": 4, "control": 8, "classical": 4}
    single = dict.fromkeys(("table", "context", "bits", "bit_figures", "figure", "benchmarks", "page", "all"), 1)
    assert jobs(run(clone, "-n", *study).stdout) == of_cells | single
    assert jobs(run(clone, "-n", *study, "--config", "chunks=4").stdout) == of_cells | single
    chain = {"fetch": 2, "gguf_model": 1, "shard": 1, "tokenize": 1, "compress": 1}
    cell = "results/smollm2/cells/text/smollm2-135m/step2000000.json"
    assert jobs(run(clone, "-n", cell, *study).stdout) == chain


def test_a_wrong_config_is_one_clear_line_and_nothing_runs(clone):
    ran = run(clone, "-n", "--config", "chunkz=3")
    assert ran.returncode != 0
    assert "config: (top level): unknown key 'chunkz'; allowed: cells_from, chunk_bytes," in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr


def test_a_key_given_twice_is_one_clear_line_and_nothing_runs(clone):
    (clone / "twice.yaml").write_text("study: mine\nchunks: 4\nchunks: 5\n")
    ran = run(clone, "-n", "--configfile", "twice.yaml")
    assert ran.returncode != 0
    assert "twice.yaml, line 3: the key 'chunks' is given twice; remove one" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def finished(clone):
    """The README's example: killed without warning while cells are at work, then run again to the end."""
    process = subprocess.Popen(
        [SNAKEMAKE, "--cores", "8", "--configfile", "mine.yaml"],
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(clone.glob("results/mine/cells/prose/*/*.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in clone.glob("results/mine/cells/prose/*/*.json")}
    for path in done:
        json.loads(path.read_text())
        pq.read_table(path.with_suffix(".parquet"))
    unlock = subprocess.run([sys.executable, "workflow/unlock.py"], cwd=clone, capture_output=True, text=True)
    assert unlock.returncode == 0, unlock.stderr
    assert "cleared the lock" in unlock.stdout
    ran = run(clone, "--configfile", "mine.yaml", "--rerun-incomplete", timeout=1800)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (clone / "said.txt").write_text(ran.stdout + ran.stderr)
    return clone


def test_a_run_says_how_many_cells_are_done_and_ends_with_what_was_found(finished):
    said = (finished / "said.txt").read_text()
    counted = [tuple(map(int, found)) for found in re.findall(r"^cell (\d+) of (\d+) done, (\d+) to do", said, re.M)]
    total = counted[0][1]  # the killed run may have made some of the nine
    assert 1 <= total <= 9 and counted[-1] == (total, total, 0)
    assert all(done + to_do == total for done, _, to_do in counted)
    figure, page, found = re.findall(r"^(?:figure|page|found): .*$", said, re.M)
    assert (finished / figure.split()[1]).exists() and (finished / page.split()[1]).exists()
    assert found.startswith("found:  With every bit counted, prose takes 0.")


def test_a_killed_run_is_finished_by_the_next_one(finished):
    cells = pd.read_csv(finished / "results/mine/tables/cells.csv")
    assert list(zip(cells["model"], cells["step"], strict=True)) == [(m, s) for m in MODELS for s in STEPS]
    for kind in ("svg", "pdf", "png"):
        assert (finished / f"results/mine/figures/scaling.{kind}").stat().st_size > 5000
    assert set(json.loads((finished / "results/mine/laws/prose.json").read_text())) == {"lossless", "published"}
    assert not list(finished.glob("results/mine/**/.*.tmp"))


def test_the_table_adds_up_and_says_what_the_cells_say(finished):
    cells = pd.read_csv(finished / "results/mine/tables/cells.csv")
    terms = cells.filter(like="audit_").sum(axis=1)
    np.testing.assert_allclose(cells["cr_published"] + terms, cells["cr_lossless"], rtol=0, atol=1e-12)
    about = json.loads((finished / ONE).read_text())
    row = cells[(cells["model"] == "ladder-141k") & (cells["step"] == 300)].iloc[0]
    assert row["cr_lossless"] == pytest.approx(about["cr_lossless"], abs=1e-12)
    assert about["stream_bits"] / (4 * 2048 * 8) == pytest.approx(about["cr_lossless"], abs=1e-12)
    assert about["decode_check"]["passed"] and about["decode_check"]["chunks"] == 2
    grid = (finished / "results/mine/tables/prose_lossless.md").read_text()
    assert f"{about['cr_lossless']:.3f}" in grid


def test_a_second_run_has_nothing_to_do(finished):
    ran = run(finished, "--configfile", "mine.yaml")
    assert "Nothing to be done" in ran.stdout + ran.stderr


def test_touched_modules_and_scripts_rerun_nothing(finished):
    for module in [*(finished / "workflow/bitlaw").rglob("*.py"), *(finished / "scripts").glob("*.py")]:
        os.utime(module)
    ran = run(finished, "-n", "--configfile", "mine.yaml")
    assert "Nothing to be done" in ran.stdout + ran.stderr


def test_a_moved_folder_reruns_nothing(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "moved", symlinks=True)
    ran = run(tmp_path / "moved", "-n", "--configfile", "mine.yaml")
    assert "Nothing to be done" in ran.stdout + ran.stderr


def rerun_for(module, clone, declared):
    """(rules with a job that the dry run explains by `module`, all rules with a job): it prints the former's messages.

    A job that waits for another one's output is explained by that alone.
    """
    said = run(clone, "-n", "--configfile", "mine.yaml").stdout
    found = set()
    for message, reason in re.findall(r"^(?:local)?Job \d+: (.*)\nReason: (.*)$", said, re.M):
        if re.search(rf"Updated input files: [^;]*{re.escape(module)}", reason):
            (rule,) = (
                name
                for name, rule in declared.items()
                if rule["message"] and re.fullmatch(re.sub(r"\\{.*?\\}", ".+", re.escape(rule["message"])), message)
            )
            found.add(rule)
    return found, set(jobs(said))


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("workflow/bitlaw/compression/range_coder.py", "compress"),
        ("workflow/bitlaw/laws/profile_intervals.py", "fit"),
        ("workflow/bitlaw/report/chart.py", "page"),
        ("workflow/bitlaw/data/seven_bit.py", "tokenize"),
        ("scripts/fit.py", "fit"),
    ],
)
def test_an_edited_module_reruns_exactly_the_rules_that_import_it(finished, path, rule):
    declared = rules("mine.yaml", folder=finished)
    importing = {name for name, own in declared.items() if path in own["modules"]}
    asked_for = set(jobs((finished / "said.txt").read_text()))
    before = (finished / path).read_text()
    try:
        (finished / path).write_text(before + "\n# another thought\n")
        explained, rerun = rerun_for(path, finished, declared)
    finally:
        (finished / path).write_text(before)
    assert rule in explained <= importing
    assert importing & (asked_for | {"fetch", "shard", "tokenize"}) <= rerun


def test_a_removed_cell_is_made_again_alone_and_comes_out_the_same(finished):
    kept = json.loads((finished / ONE).read_text())
    (finished / ONE).unlink()
    planned = run(finished, "-n", "--configfile", "mine.yaml", "--until", "compress")
    assert jobs(planned.stdout) == {"compress": 1}
    ran = run(finished, ONE, "--configfile", "mine.yaml")
    assert ran.returncode == 0, ran.stderr
    assert jobs(ran.stdout + ran.stderr) == {"compress": 1}
    assert "cell 1 of 1 done, 0 to do" in ran.stderr and "found:" not in ran.stderr
    again = json.loads((finished / ONE).read_text())
    assert again["stream_sha256"] == kept["stream_sha256"]


def test_an_interrupted_run_leaves_nothing_half_written_and_goes_on(finished):
    (finished / ONE).unlink()
    log = finished / "results/mine/logs/cells/prose/ladder-141k/step300.log"
    log.unlink()
    command = [SNAKEMAKE, "--cores", "8", ONE, "--configfile", "mine.yaml"]
    with open(finished / "interrupted.txt", "w") as said:
        process = subprocess.Popen(command, cwd=finished, stdout=said, stderr=said, start_new_session=True)
    deadline = time.monotonic() + 120
    while not log.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does, to every process of the terminal
    ended = process.wait(timeout=120)
    assert ended != 0 or (finished / ONE).exists()  # interrupted, or done before the signal came
    assert "Traceback" not in (finished / "interrupted.txt").read_text()
    assert not list((finished / ONE).parent.glob(".*"))
    if (finished / ONE).exists():  # a library that is being loaded may swallow the signal; then the job ends by itself
        json.loads((finished / ONE).read_text())
    again = run(finished, ONE, "--configfile", "mine.yaml", "--rerun-incomplete")
    assert again.returncode == 0, again.stderr
    assert json.loads((finished / ONE).read_text())["decode_check"]["passed"]


def test_another_working_directory_needs_a_configuration_there(finished, tmp_path):
    ran = run(finished, "-n", "--directory", tmp_path)
    assert ran.returncode != 0 and f"{tmp_path}: holds no config.yaml" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_failed_job_says_why_in_its_log_and_leaves_no_result(finished):
    weights = finished / "data/ladder/ladder-141k/step300/model.safetensors"
    good = weights.read_bytes()
    (finished / ONE).unlink()
    try:
        weights.write_bytes(b"not weights")
        ran = run(finished, ONE, "--configfile", "mine.yaml")
    finally:
        weights.write_bytes(good)
    assert ran.returncode != 0
    assert not (finished / ONE).exists()
    log = (finished / "results/mine/logs/cells/prose/ladder-141k/step300.log").read_text()
    assert "model.safetensors: not a safetensors file; fetch it again" in log
    assert "Traceback" in log
    assert f"failed: {ONE}\n" in ran.stderr and "fetch it again" in ran.stderr.split("failed: ")[1]
    retry = shlex.split(re.search(r"^retry: (.*)$", ran.stderr, re.M)[1])
    assert retry[1:] == [ONE, "--cores", "8", "--configfile", "mine.yaml"]
    assert subprocess.run(retry, cwd=finished, capture_output=True, timeout=600).returncode == 0
    assert (finished / ONE).exists()


def test_unlock_refuses_while_a_run_is_alive(finished):
    """Stand in for a run by a process whose name is snakemake and whose folder is this one."""
    fake = finished / "bin" / "snakemake"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text("import time\ntime.sleep(60)\n")
    lock = finished / ".snakemake" / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("x\n")
    process = subprocess.Popen([sys.executable, str(fake)], cwd=finished)
    try:
        time.sleep(0.5)
        ran = subprocess.run([sys.executable, "workflow/unlock.py"], cwd=finished, capture_output=True, text=True)
        assert ran.returncode != 0
        assert str(process.pid) in ran.stderr
        assert lock.exists()
    finally:
        process.kill()
        process.wait()
        lock.unlink()


@pytest.mark.slow
def test_a_decoder_that_is_started_anew_does_not_run_the_job_again(clone, tmp_path):
    """As on a GPU, where the decoder reads the job's script, too."""
    folder = shutil.copytree(clone, tmp_path / "clone")
    library = folder / "workflow/bitlaw/compression/cell.py"
    text = library.read_text()
    assert '{"cpu": "fork"' in text
    library.write_text(text.replace('{"cpu": "fork"', '{"cpu": "spawn"'))
    environment = os.environ | {"PYTHONPATH": str(folder / "workflow")}
    ran = run(folder, ONE, "--configfile", "mine.yaml", env=environment)
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout + ran.stderr).count("coding exact") == 1
    assert json.loads((folder / ONE).read_text())["decode_check"]["passed"]
