"""Every command of docs/laws.md runs and says what the page shows of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT

PAGE = (ROOT / "docs" / "laws.md").read_text()
BLOCK = re.compile(r"```(sh|text)\n(.*?)```", re.S)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def pairs():
    """[(commands, what the page shows of their output or None)]."""
    out = []
    for kind, text in BLOCK.findall(PAGE):
        if kind == "sh":
            out.append([text, None])
        else:
            assert out[-1][1] is None
            out[-1][1] = text
    return out


@pytest.mark.slow
def test_every_command_runs_and_says_what_the_page_shows(clone):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(clone / "workflow")}
    assert len(pairs()) == 5
    for commands, shown in pairs():
        refused = commands.startswith("! ")
        script = 'bitlaw() { python -m bitlaw "$@"; }\n' + commands.removeprefix("! ")
        ran = subprocess.run(["bash", "-euc", script], cwd=clone, env=environment, capture_output=True, text=True)
        assert ran.returncode == (1 if refused else 0), ran.stdout + ran.stderr
        assert not refused or (ran.stderr.count("\n") == 1 and "ask within" in ran.stderr)
        said = re.sub(r"\s+", " ", ran.stdout)
        for line in (shown or "").splitlines():
            words = re.sub(r"\s+", " ", line.strip())
            like = NUMBER.sub(lambda _: NUMBER.pattern, re.escape(words).replace(r"\-", "-"))
            (found,) = set(re.findall(like, said)) or {None}
            assert found is not None, f"{words!r} is not in {ran.stdout}"
            for one, other in zip(NUMBER.findall(words), NUMBER.findall(found), strict=True):
                assert float(other) == pytest.approx(float(one), rel=0.02, abs=2e-3), (words, found)
    for name in ("laws.svg", "planted.svg"):
        assert (clone / name).stat().st_size > 10_000
