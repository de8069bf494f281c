"""Messages of a job: how far a long step is, how many cells of a run are done, and how a failure is told.

All goes through `logging`, to the terminal and to the job's log file alike; a command of a person's at a terminal draws
bars instead (see `for_a_person`).
"""

import json
import logging
import os
import shlex
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.atomic import write_text

SECONDS_BETWEEN = 5.0
LAST_LINES = 5  # of a failed job's log


_person = False


def for_a_person():
    """From here on draw bars on standard error if that is a terminal, and else stay silent but for warnings."""
    global _person
    _person = True
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of transformers and the Hub, not imported yet
    logging.basicConfig(level=logging.INFO if sys.stderr.isatty() else logging.WARNING, format="%(message)s")


def progress(what, total, unit="", scale=1):
    """Return a function to be called with the amount done so far; logs at most every SECONDS_BETWEEN seconds.

    `total` may be None when unknown; amounts are divided by `scale` for display (1e6 for MB). At a person's terminal it
    is a bar, which goes away when `total` is reached.
    """
    if _person and sys.stderr.isatty():
        return _bar(what, total, unit)
    log = logging.getLogger("bitlaw")
    started = last = time.monotonic()

    def report(done):
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN:
            return
        last = now
        if not total:
            log.info("%s: %.4g %s", what, done / scale, unit)
            return
        left = (now - started) * (total - done) / done if done else float("nan")
        log.info("%s: %.4g of %.4g %s, %.0f s left", what, done / scale, total / scale, unit, left)

    return report


def _bar(what, total, unit):
    from tqdm import tqdm  # here, as jobs do without

    bar = tqdm(total=total, desc=what, unit=f" {unit}" if unit else "", unit_scale=True, leave=False, delay=1.0)

    def report(done):
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return report


class _Terminal(logging.Formatter):
    """The message alone, but for warnings, which a reader must find among many lines."""

    def format(self, record):
        text = super().format(record)
        return f"warning: {text}" if record.levelno == logging.WARNING else text


def log_to(path):
    """Send messages to the terminal and to the file `path`; a traceback goes to the file, its last line to both.

    Of an interruption (Ctrl-C) both say just that.
    """
    handlers = [logging.StreamHandler(), logging.FileHandler(path, mode="w")]
    handlers[0].setFormatter(_Terminal("%(message)s"))
    handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=handlers)
    logging.raiseExceptions = False  # of a log on a full disk: what could not be written fails the job by its own line
    log = logging.getLogger("bitlaw")
    log.setLevel(logging.INFO)

    def failed(kind, error, trace):
        if issubclass(kind, KeyboardInterrupt):
            log.error("interrupted")
            return
        with suppress(OSError):  # a full disk: the line below still reaches the terminal
            handlers[1].stream.write("".join(traceback.format_exception(kind, error, trace)))
        log.error("%s (more in %s)", error if isinstance(error, InputError) else f"{kind.__name__}: {error}", path)

    sys.excepthook = failed


def cells_to_do(path, cells):
    """Note in the file `path` which cells (json paths) a run is about to make; `cell_done` reads it."""
    write_text(path, json.dumps({"started": time.time(), "cells": list(cells)}))


def cell_done(path):
    """Log how many of a run's cells are done and how long the others will take, at the rate since its first began.

    Counts the files written since the run began, so it holds for jobs side by side and for a run that makes only what
    is missing. Says nothing where no run noted its cells in `path`.
    """
    path = Path(path)
    if not path.exists():
        return
    run = json.loads(path.read_text())
    done = [c for c in map(Path, run["cells"]) if c.exists() and c.stat().st_mtime >= run["started"]]
    to_do = len(run["cells"]) - len(done)
    if not done:
        return
    first = min(cell.stat().st_mtime - json.loads(cell.read_text())["seconds"] for cell in done)
    left = f", about {(time.time() - first) * to_do / len(done):.0f} s left" if to_do else ""
    logging.getLogger("bitlaw").info("cell %d of %d done, %d to do%s", len(done), len(run["cells"]), to_do, left)


def failure(target, log, command):
    """Lines that end a run whose job failed: the job's target, the last lines of its log, the command that retries it.

    command: the words that ran, without their targets; options that take every word after them stay behind the target.
    """
    lines = Path(log).read_text(errors="replace").splitlines() if log and Path(log).exists() else ["(it wrote no log)"]
    last = [f"    {line}" for line in lines[-LAST_LINES:]]
    return [f"failed: {target}", *last, f"retry:  {shlex.join([command[0], target, *command[1:]])}"]
