"""The committed streams decode, and are made byte by byte, under other kernels, other compiled code, another processor.

Each setting is a process of its own (`worker.py`), since libraries choose their kernels when they are loaded.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import arm
import pytest

from bitlaw.compression import known_answers
from repository import ROOT

pytestmark = pytest.mark.portable

WORKER = Path(__file__).with_name("worker.py")
STREAMS = WORKER.parent / "streams"
# processors: the variables that choose them, what must be found chosen, and what this one must have for it
KERNELS = {
    "OpenBLAS for Haswell": ({"OPENBLAS_CORETYPE": "Haswell"}, "Haswell", {"avx2", "fma"}),
    "OpenBLAS for Sandy Bridge": ({"OPENBLAS_CORETYPE": "Sandybridge"}, "Sandybridge", {"avx"}),
    # by the name of the oldest processor that shares its kernels in a 64-bit library
    "OpenBLAS for Prescott": ({"OPENBLAS_CORETYPE": "Prescott"}, "Katmai", set()),
}
# torch's own kernels, and oneDNN's and MKL's below them
TORCH = {
    "AVX2": (
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        {"avx2"},
    ),
    "no AVX": (
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
        set(),
    ),
}
COMPILED = {
    "no AVX-512": ({"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}, {"avx2", "fma"}),
    "no FMA": ({"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "-fma"}, {"avx2"}),
    "no AVX2": ({"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": "+avx"}, {"avx"}),
    "generic": ({"NUMBA_CPU_NAME": "generic"}, set()),
}
OF_THIS_SUITE = {
    *TORCH["AVX2"][0],
    "OMP_NUM_THREADS",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "PYTHONPATH",
}


def run(command, argument, variables, compiled):
    """The worker's report, by the `command` that runs a script, with compiled loops in the folder `compiled`."""
    inherited = {name: value for name, value in os.environ.items() if name not in OF_THIS_SUITE}
    variables = {"PYTHONPATH": str(ROOT / "workflow"), "NUMBA_CACHE_DIR": str(compiled)} | variables
    ran = subprocess.run(
        [*command, str(WORKER), str(argument)],
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=3 * 3600,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def run_here(argument, variables, compiled=arm.FOLDER / "compiled"):
    return run([sys.executable], argument, variables, compiled)


def needs(features):
    """Skip where this processor lacks one of the features."""
    if platform.machine() != "x86_64":
        pytest.skip(f"chooses between x86-64 processors; this is {platform.machine()}")
    (flags,) = {line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")}
    if missing := features - set(flags.split()):
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")


def check(report, out):
    """Streams made and decoded there are the committed ones, known answers the table's; nothing heavy is imported."""
    plain, table = hashlib.sha256((STREAMS / "mixed.bin").read_bytes()).hexdigest(), known_answers.read_table()
    assert set(report["streams"]) == {path.stem for path in STREAMS.glob("*.blaw")} == {"ladder", "llama"}
    for name, found in report["streams"].items():
        stream = (STREAMS / f"{name}.blaw").read_bytes()
        assert (out / f"{name}.blaw").read_bytes() == stream
        assert found["made"] == dict.fromkeys(("1", "2"), hashlib.sha256(stream).hexdigest()), name
        ways = "all chunks, 1 thread", "all chunks, 2 threads", "a chunk at a time"
        assert found["decoded"] == dict.fromkeys(ways, plain), name
    assert report["engines"] == list(known_answers.ENGINES)
    assert len(report["answers"]) == len(table["tiny"]) + 5
    for name, found in report["answers"].items():
        assert found == dict.fromkeys(report["engines"], table["answers"][name]), name
    assert report["imported"] == []


def test_as_this_machine_is(tmp_path):
    check(run_here(tmp_path, {}), tmp_path)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_matrix_products(tmp_path, threads):
    check(run_here(tmp_path, {"OPENBLAS_NUM_THREADS": str(threads)}), tmp_path)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_matrix_products(tmp_path, name):
    variables, chosen, features = KERNELS[name]
    needs(features)
    report = run_here(tmp_path, variables)
    assert report["blas"] == chosen
    check(report, tmp_path)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", TORCH)
def test_kernels_of_torch(name, threads):
    variables, features = TORCH[name]
    needs(features)
    report = run_here("digits", variables | {"OMP_NUM_THREADS": str(threads)})
    assert report["kernels"] == variables["ATEN_CPU_CAPABILITY"].upper()
    table = known_answers.read_table()
    assert len(report["answers"]) == len(table["tiny"]) + 5
    assert {name: table["answers"][name] for name in report["answers"]} == report["answers"]


@pytest.mark.parametrize("name", COMPILED)
def test_loops_compiled_for_other_processors(tmp_path, name):
    variables, features = COMPILED[name]
    needs(features)
    report = run_here(tmp_path, variables)
    assert report["processor"] == variables["NUMBA_CPU_NAME"]
    assert report["features"] == variables.get("NUMBA_CPU_FEATURES", "")
    check(report, tmp_path)


@pytest.fixture(scope="module")
def emulated():
    """Runs the worker on the emulated Arm machine."""
    try:
        machine = arm.machine()
    except arm.Unavailable as reason:
        pytest.skip(f"no emulated 64-bit Arm: {reason}")
    path = os.pathsep.join(map(str, (ROOT / "workflow", machine.site)))

    def run_there(argument, compiled=arm.FOLDER / "compiled-arm64"):
        return run(machine.command, argument, {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, compiled)

    return run_there


def test_on_arm(tmp_path, emulated):
    report = emulated(tmp_path)
    assert report["machine"] == "aarch64"
    check(report, tmp_path)


def check_assembly(found):
    """No fused multiply-add in any elementwise function, though the same search finds one where it is allowed."""
    assert found.pop("allowed to fuse")["fused"]
    elementwise = {"_norms", "_activations", "_attention_weights", "_scaled", "_split", "_rows"}
    assert elementwise <= {name.rpartition(".")[2] for name in found}
    assert {name: kinds["fused"] for name, kinds in found.items() if kinds["fused"]} == {}
    assert all(found[name]["single"] for name in found if name.rpartition(".")[2] in elementwise)


def test_no_fused_multiply_add_here(tmp_path):
    needs({"fma"})
    check_assembly(run_here("assembly", {}, compiled=tmp_path))


def test_no_fused_multiply_add_on_arm(tmp_path, emulated):
    check_assembly(emulated("assembly", compiled=tmp_path))


def test_without_a_network_there_is_a_reason_and_no_half_made_machine(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(arm.Unavailable, match="apt-get") as reason:
        arm.machine(tmp_path)
    assert "\n" not in str(reason.value) and not (tmp_path / "arm64").exists()
