"""Leases of GPUs by processes that live, end and are killed; devices that fail; decoders that outlive no cell."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bitlaw import InputError
from bitlaw.runtime import gpu
from cell_process import WORKFLOW, compress
from repository import rules

PROFILE = "profiles/local-gpu"
HOLD = """
import os, sys, time
from bitlaw.runtime import gpu
with gpu.lease("cuda"):
    with open(sys.argv[1], "a") as file:
        file.write(f"{time.monotonic()} +1 {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
    print("holds", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(float(sys.argv[2]))
    with open(sys.argv[1], "a") as file:
        file.write(f"{time.monotonic()} -1 {os.environ['CUDA_VISIBLE_DEVICES']}\\n")
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Gives this test's processes GPUs with the names given, by an nvidia-smi of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(WORKFLOW))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def with_gpus(*names):
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n" + "".join(f"echo {name}\n" for name in names))
        (tmp_path / "nvidia-smi").chmod(0o755)

    return with_gpus


def hold(log, seconds, **options):
    command = [sys.executable, "-c", HOLD, str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def gone(pid, seconds=10):
    """Whether the process ends within `seconds`."""
    for _ in range(int(seconds * 20)):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (None, ["GPU-aa1", "GPU-ab2", "GPU-c33"]),
        ("", []),
        ("2,0", ["GPU-c33", "GPU-aa1"]),
        ("GPU-ab,GPU-c33", ["GPU-ab2", "GPU-c33"]),
        ("1,7,0", ["GPU-ab2"]),
        ("GPU-a,0", []),
        ("MIG-1234", ["MIG-1234"]),
    ],
)
def test_gpus_are_those_of_nvidia_smi_that_cuda_would_see(machine, monkeypatch, allowed, expected):
    machine("GPU-aa1", "GPU-ab2", "GPU-c33")
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert gpu.gpus() == expected


def test_without_a_gpu_a_lease_is_refused_in_one_line(machine):
    machine()
    with pytest.raises(InputError, match="^device: 'cuda' given, but nvidia-smi shows no GPU here; choose cpu$"):
        with gpu.lease("cuda"):
            pass


def test_a_cpu_is_not_leased(machine):
    machine("GPU-1")
    with gpu.lease("cpu"):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
        assert not (Path(os.environ["XDG_RUNTIME_DIR"]) / "bitlaw").exists()


def test_two_processes_never_hold_the_same_gpu(machine, tmp_path):
    machine("GPU-1", "GPU-2")
    running = [hold(tmp_path / "log", 0.4) for _ in range(6)]
    assert [process.wait(30) for process in running] == [0] * 6
    lines = (tmp_path / "log").read_text().splitlines()
    events = sorted((float(t), int(change), name) for t, change, name in map(str.split, lines))
    held, most = {"GPU-1": 0, "GPU-2": 0}, 0
    for _, change, name in events:
        held[name] += change
        assert held[name] in (0, 1)
        most = max(most, sum(held.values()))
    assert len(events) == 12 and most == 2


def test_kill_releases_the_gpu(machine, tmp_path):
    machine("GPU-1")
    first = hold(tmp_path / "log", 600)
    assert first.stdout.readline() == "holds GPU-1\n"
    second = hold(tmp_path / "log", 0)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == "holds GPU-1\n" and second.wait(10) == 0
    first.wait()


def test_a_lease_gives_the_environment_back(machine, monkeypatch):
    machine("GPU-1", "GPU-2")
    with gpu.lease("cuda"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    with gpu.lease("cuda"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-2"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"


def test_the_profile_runs_as_many_cells_as_there_are_gpus(machine, tmp_path):
    from snakemake.profiles import ProfileConfigFileParser

    machine("GPU-1", "GPU-2", "GPU-3")
    root = WORKFLOW.parent
    with open(root / PROFILE / "profile.v9+.yaml") as file:
        assert ProfileConfigFileParser().parse(file)["resources"] == ["gpu=3"]
    snakemake = Path(sys.executable).with_name("snakemake")
    cell = f"results/{tmp_path.name}/cells/text/ladder-64k/step75.json"
    command = [
        snakemake,
        "--profile",
        PROFILE,
        "-n",
        "--config",
        f"study={tmp_path.name}",
        "device=cuda",
        "precision=fp16",
        "--",
        cell,
    ]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Compress text with ladder-64k at step 75" in ran.stdout
    (tmp_path / "gpu.yaml").write_text("device: cuda\nprecision: fp16\n")
    assert {name for name, rule in rules(tmp_path / "gpu.yaml").items() if rule["gpus"]} == {"compress", "control"}


@pytest.mark.parametrize(
    "error", [torch.AcceleratorError("CUDA error: unspecified"), RuntimeError("CUDA error: lost\n")]
)
def test_a_device_that_disappears_is_one_line(error):
    with pytest.raises(gpu.DeviceError) as caught, gpu.failures("cuda"):
        raise error
    assert str(caught.value).startswith("cuda: the device failed (CUDA error: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("other"), OSError("x")])
def test_what_is_no_failure_of_the_device_passes(error):
    with pytest.raises(type(error)) as caught, gpu.failures("cuda"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("where", ["codec.header", "codec.restore"])
def test_a_cell_whose_device_disappears_leaves_no_result(data, tmp_path, neox_folder, where):
    before = f"""
import torch
def lost(*a):
    raise torch.AcceleratorError("CUDA error: device-side failure")
{where} = lost"""
    ran, about = compress(data, neox_folder, tmp_path, before)
    assert ran.returncode != 0 and about is None and list(tmp_path.iterdir()) == []
    last = "cpu: the device failed (CUDA error: device-side failure); nothing was written, run this again"
    assert ran.stderr.rstrip().endswith(f"bitlaw.runtime.gpu.DeviceError: {last}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a torch that cannot use a GPU")
def test_a_torch_that_cannot_use_the_gpu_is_one_line(machine, data, tmp_path, neox_folder):
    machine("GPU-1")
    (tmp_path / "out").mkdir()
    ran, about = compress(data, neox_folder, tmp_path / "out", device="cuda")
    assert about is None and "cannot use the GPU here; install a build of torch for its driver" in ran.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_exact_cell_on_a_gpu_is_that_of_the_processor(data, tmp_path, neox_folder):
    ran, about = compress(data, neox_folder, tmp_path, device="cuda", precision="exact")
    assert ran.returncode == 0, ran.stderr
    (tmp_path / "cpu").mkdir()
    _, on_cpu = compress(data, neox_folder, tmp_path / "cpu", precision="exact")
    assert about["mode"] == "exact" and about["stream_sha256"] == on_cpu["stream_sha256"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_a_cell_on_a_gpu_decodes(data, tmp_path, neox_folder, precision):
    ran, about = compress(data, neox_folder, tmp_path, device="cuda", precision=precision)
    assert ran.returncode == 0, ran.stderr
    assert about["mode"] == "lockstep" and about["decode_check"]["passed"] and about["peak_device_memory_bytes"] > 0
    assert about["compute"] == ("fp16" if precision == "int8" else precision)
    (tmp_path / "cpu").mkdir()
    _, on_cpu = compress(data, neox_folder, tmp_path / "cpu", precision=precision)
    assert about["cr_lossless"] == pytest.approx(on_cpu["cr_lossless"], rel=1e-3)


@pytest.mark.slow
def test_the_decoder_may_be_started_anew(data, tmp_path, neox_folder):
    ran, about = compress(data, neox_folder, tmp_path, 'cell.START["cpu"] = "spawn"')
    assert ran.returncode == 0, ran.stderr
    assert about["decode_check"]["passed"]


def test_the_decoder_ends_when_its_cell_is_killed(data, tmp_path, neox_folder):
    before = f"""
def wait(*a):
    import os, time
    with open("{tmp_path}/new", "w") as file:
        file.write(f"{{os.getppid()}} {{os.getpid()}}")
    os.rename("{tmp_path}/new", "{tmp_path}/pids")
    time.sleep(600)
codec.restore = wait
import threading, os, signal, time
def killer():
    while not os.path.exists("{tmp_path}/pids"):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=killer, daemon=True).start()"""
    ran, about = compress(data, neox_folder, tmp_path, before)
    assert ran.returncode == -signal.SIGKILL and about is None
    _, decoder = map(int, (tmp_path / "pids").read_text().split())
    assert gone(decoder)
