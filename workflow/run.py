"""Run Snakemake and show a person one screen: a bar over all jobs, what runs now, warnings, and the closing lines.

    python workflow/run.py [OPTIONS OF SNAKEMAKE...]

All that Snakemake and its jobs say goes to results/run.log. Without a terminal there is no bar but a line at every
tenth of the jobs. The exit status is Snakemake's. Ctrl-C reaches Snakemake as well, which ends its jobs; their files
are whole.
"""

import re
import signal
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

LOG = Path("results/run.log")
SHOWN = 20  # last lines of the log that are shown where a run ends before any job has failed
STARTED = re.compile(r"^Job (\d+): (.+)")
FINISHED = re.compile(r"^Finished jobid: (\d+)")
STEPS = re.compile(r"^(\d+) of (\d+) steps")
CELLS = re.compile(r"^cell \d+ of \d+ done")
CLOSING = re.compile(r"^(failed: |no law: |figure: |Nothing to be done)")


class Screen:
    """What is known of a run from the lines it has said so far."""

    def __init__(self, stream):
        self.stream = stream
        self.terminal = stream.isatty()
        self.bar = None
        self.running = {}  # by the number of the job
        self.cells = ""
        self.closing = []  # from the first closing line on, all
        self.tenths = 0

    def line(self, line):
        """Take in one line of the run."""
        if self.closing or CLOSING.match(line):
            self.closing.append(line)
        elif found := STARTED.match(line):
            self.running[found[1]] = found[2]
        elif found := FINISHED.match(line):
            self.running.pop(found[1], None)
        elif found := STEPS.match(line):
            self.steps(int(found[1]), int(found[2]))
        elif CELLS.match(line):
            self.cells = line
        elif line.startswith("warning: "):
            self.say(line)
        self.draw()

    def steps(self, done, total):
        if self.terminal:
            if self.bar is None:
                shape = "{percentage:3.0f}% |{bar:20}| {n_fmt} of {total_fmt} jobs, {elapsed}{postfix}"
                self.bar = tqdm(total=total, file=self.stream, bar_format=shape, leave=False, dynamic_ncols=True)
            self.bar.update(done - self.bar.n)
        elif 10 * done // total > self.tenths:
            self.tenths = 10 * done // total
            self.say(f"{done} of {total} jobs" + (f"; {self.cells}" if self.cells else ""))

    def draw(self):
        if self.bar is not None:
            now = next(reversed(self.running.values()), "")
            self.bar.set_postfix_str("; ".join(filter(None, [self.cells, now])))

    def say(self, line):
        tqdm.write(line, file=self.stream)

    def close(self):
        if self.bar is not None:
            self.bar.close()


def run(command, log, stream):
    """Run `command` and return its exit status; its output goes to the file `log`, what a person needs to `stream`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    screen = Screen(stream)
    # Ctrl-C reaches Snakemake as well: what it says while it ends is part of the run, so nothing is raised here
    before = signal.signal(signal.SIGINT, lambda *_: screen.say("interrupted: waiting for the jobs to end"))
    try:
        with open(log, "w") as kept:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
            for line in process.stdout:
                kept.write(line)
                kept.flush()
                screen.line(line.rstrip("\n"))
            status = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    screen.close()
    for line in screen.closing or (log.read_text(errors="replace").splitlines()[-SHOWN:] if status else []):
        print(line, file=stream)
    print(f"all that was said: {log}", file=stream)
    return status


if __name__ == "__main__":
    snakemake = Path(sys.executable).with_name("snakemake")
    sys.exit(run([snakemake, *sys.argv[1:]], LOG, sys.stderr))
