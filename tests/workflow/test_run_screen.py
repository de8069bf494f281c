"""`make run` shows one screen: what a person needs, and everything else in the log that the last line names."""

import io
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import run as screen

SAID = """\
Building DAG of jobs...
[Wed Nov 25 01:09:36 2026]
Job 3: Fetch the source enwik8
Reason: Missing output files: data/raw/enwik8/source.json
warning: enwik8: https://example.org: ConnectionError
[Wed Nov 25 01:09:37 2026]
Finished jobid: 3 (Rule: fetch)
1 of 20 steps (5%) done
Job 4: Compress text with ladder-64k, step 75
cell 1 of 9 done, 8 to do, about 40 s left
Finished jobid: 4 (Rule: compress)
10 of 20 steps (50%) done
20 of 20 steps (100%) done
figure: results/embedded/figures/scaling.png
page:   results/embedded/report.html
found:  text 0.25 to 0.38
"""


def saying(text, status=0):
    return [sys.executable, "-c", f"import sys; sys.stdout.write({text!r}); sys.exit({status})"]


def test_without_a_terminal_it_is_a_line_at_every_tenth_the_warnings_and_the_end(tmp_path):
    log, shown = tmp_path / "logs/run.log", io.StringIO()
    assert screen.run(saying(SAID), log, shown) == 0
    assert shown.getvalue().splitlines() == [
        "warning: enwik8: https://example.org: ConnectionError",
        "10 of 20 jobs; cell 1 of 9 done, 8 to do, about 40 s left",
        "20 of 20 jobs; cell 1 of 9 done, 8 to do, about 40 s left",
        "figure: results/embedded/figures/scaling.png",
        "page:   results/embedded/report.html",
        "found:  text 0.25 to 0.38",
        f"all that was said: {log}",
    ]
    assert log.read_text() == SAID


def test_at_a_terminal_there_is_a_bar_with_what_runs_now(tmp_path):
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 120))
    slowly = f"import time\nfor line in {SAID.splitlines()!r}:\n    print(line, flush=True); time.sleep(0.02)"
    with open(side, "w") as terminal:
        assert screen.run([sys.executable, "-c", slowly], tmp_path / "run.log", terminal) == 0
        shown = os.read(main, 1 << 16).decode()
    os.close(main)
    at_half = shown.split("10 of 20 jobs")[1].split("\r")[0]
    assert "cell 1 of 9 done, 8 to do, about 40 s left" in at_half
    assert "Compress text with ladder-64k" in shown.split("1 of 20 jobs", 1)[1]
    assert "found:  text" in shown and "Building DAG" not in shown


def test_a_failed_job_ends_with_its_lines_and_the_status(tmp_path):
    shown = io.StringIO()
    said = SAID.split("figure:")[0] + "failed: results/x.json\n    disk full\nretry:  snakemake results/x.json\n"
    assert screen.run(saying(said, 3), tmp_path / "run.log", shown) == 3
    assert "failed: results/x.json\n    disk full\nretry:  snakemake results/x.json\n" in shown.getvalue()


def test_a_run_that_fails_before_any_job_shows_the_last_lines(tmp_path):
    shown = io.StringIO()
    said = "\n".join(f"line {n}" for n in range(100)) + "\nconfig.yaml: chunks: -1 is less than 1\n"
    assert screen.run(saying(said, 1), tmp_path / "run.log", shown) == 1
    assert "config.yaml: chunks: -1" in shown.getvalue() and "line 10\n" not in shown.getvalue()


def test_an_interrupted_run_waits_for_its_end_and_says_so(tmp_path):
    ending = (
        "import signal, sys, time\n"
        "def end(*_):\n    print('Terminating processes on user request', flush=True); time.sleep(0.5); sys.exit(1)\n"
        "signal.signal(signal.SIGINT, end)\nprint('started', flush=True)\ntime.sleep(60)"
    )
    code = (
        "import sys, run; from pathlib import Path\n"
        f"sys.exit(run.run([sys.executable, '-c', {ending!r}], Path('run.log'), sys.stderr))"
    )
    runs = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(screen.__file__)},
    )
    log = tmp_path / "run.log"
    while not (log.exists() and "started" in log.read_text()):
        assert runs.poll() is None
        time.sleep(0.05)
    os.killpg(runs.pid, signal.SIGINT)
    assert runs.wait(30) == 1
    said = runs.stderr.read()
    assert "interrupted" in said and "Terminating processes" in said and "Traceback" not in said
