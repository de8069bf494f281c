"""The compiled loops give the same logits for processors with other instructions than this one has at hand."""

import hashlib
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

import tiny_decoders
from bitlaw.models.exact.model import Model

IDS = np.random.default_rng(2).integers(0, 101, 120)
# what numba is told that the processor has
INSTRUCTIONS = {
    "sse2": ("x86-64", "+sse,+sse2"),
    "avx2": ("haswell", "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+f16c"),
}


def fingerprint(folder):
    """sha256 of the logits of IDS under the checkpoint in `folder`: of the whole at once and then of steps."""
    model, digest = Model(folder), hashlib.sha256()
    digest.update(model.head(model.hidden(IDS), 0, len(IDS)).copy().tobytes())
    cache = model.new_cache(1, len(IDS))
    for i in range(0, len(IDS), 2):
        states = model.hidden(IDS[i : i + 2], cache, past=i)
        digest.update(model.head(states, 0, len(states.scales[: len(IDS[i : i + 2])])).copy().tobytes())
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instructions of x86-64")
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_older_instructions(tmp_path, name):
    folders = [tiny_decoders.checkpoint(tmp_path / family, family) for family in ("gpt_neox", "qwen3")]
    processor, features = INSTRUCTIONS[name]
    environment = os.environ | {
        "NUMBA_CPU_NAME": processor,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path / "compiled"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = "import sys, test_exact_machines as t; print(*map(t.fingerprint, sys.argv[1:]))"
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [fingerprint(folder) for folder in folders]
