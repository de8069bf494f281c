"""A job's messages when its log cannot be written."""

import os
import subprocess
import sys

from repository import ROOT

FULL = """
import resource, sys
from bitlaw.runtime import logs
logs.log_to(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))  # a write past ten bytes fails, as on a full disk
import logging
logging.getLogger("bitlaw").info("done: %d of %d", 1, 2)
logging.getLogger("bitlaw").warning("it is late")
def deep(n):
    if n:
        deep(n - 1)
    raise OSError(28, "No space left on device")
try:
    deep(0)
except OSError as error:
    raise ValueError("x" * 20000) from error
"""


def test_a_full_disk_is_told_on_the_terminal_without_a_traceback(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "job.log"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[:2] == ["done: 1 of 2", "warning: it is late"]
    assert "Traceback" not in ran.stderr and "Logging error" not in ran.stderr
    assert ran.stderr.rstrip().endswith(f"(more in {tmp_path}/job.log)")
