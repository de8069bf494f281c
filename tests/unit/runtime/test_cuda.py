"""What is said of a driver and a torch that do not fit, and the arithmetic of floating-point products on CUDA."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bitlaw import InputError
from bitlaw.analysis import control_passes
from bitlaw.compression import lockstep
from bitlaw.data import shards
from bitlaw.runtime import cuda, gpu


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretends a torch for a CUDA, which cannot use the GPU of a driver that nvidia-smi tells."""

    def pretend(built_for, driver):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho {driver}\n" if driver else "#!/bin/sh\nexit 9\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setattr(torch, "__version__", "2.13.0")
        monkeypatch.setattr(torch.version, "cuda", built_for)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    return pretend


@pytest.mark.parametrize(
    ("built_for", "driver", "said"),
    [
        (
            "13.0",
            "535.183.01",
            "torch 2.13.0 is built for CUDA 13.0, which needs driver 580.65.06; here is 535.183.01; "
            "install a build of torch for CUDA 12 (docs/cluster.md) or choose cpu",
        ),
        (
            "12.8",
            "470.256.02",
            "torch 2.13.0 is built for CUDA 12.8, which needs driver 525.60.13; here is 470.256.02; "
            "install a build of torch for CUDA 11 (docs/cluster.md) or choose cpu",
        ),
        (
            "12.8",
            "390.157",
            "torch 2.13.0 is built for CUDA 12.8, which needs driver 525.60.13; here is 390.157; "
            "update the driver or choose cpu",
        ),
        (
            None,
            "580.95.05",
            "torch 2.13.0 is built for processors only; install a build for CUDA (docs/cluster.md) or choose cpu",
        ),
        (
            "13.0",
            "580.95.05",
            "torch 2.13.0, built for CUDA 13.0, cannot use the GPU here (driver 580.95.05); "
            "see what nvidia-smi says of it or choose cpu",
        ),
        (
            "13.0",
            None,
            "torch 2.13.0, built for CUDA 13.0, cannot use the GPU here (driver None); "
            "see what nvidia-smi says of it or choose cpu",
        ),
    ],
)
def test_a_torch_that_cannot_use_the_gpu_is_one_line_with_both_versions(installed, built_for, driver, said):
    installed(built_for, driver)
    with pytest.raises(InputError) as caught:
        cuda.check("cuda")
    assert str(caught.value) == f"device: 'cuda' given, but {said}"
    cuda.check("cpu")


def test_a_torch_that_can_use_the_gpu_passes(installed, monkeypatch):
    installed("13.0", "580.95.05")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cuda.check("cuda")


def test_control_passes_are_checked_as_cells_are(installed, neox_folder, tmp_path, monkeypatch):
    installed("13.0", "535.183.01")
    monkeypatch.setattr(gpu, "gpus", lambda: ["GPU-1"])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(shards, "read", lambda folder: np.zeros((2, 16), dtype=np.uint8))
    paths = neox_folder, neox_folder / "tokenizer.json", tmp_path, tmp_path / "out.parquet"
    with pytest.raises(InputError, match="which needs driver 580.65.06; here is 535.183.01"):
        control_passes.run("shuffled", *paths, precision="fp16", device="cuda", tokens_at_a_time=100)
    assert not (tmp_path / "out.parquet").exists()


def test_products_are_fixed_and_told(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    products = torch.backends.cuda.matmul
    names = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    for name in names:
        setattr(products, name, True)
    torch.backends.cudnn.benchmark = True
    assert cuda.arithmetic("cuda") == {
        "tf32": True,
        "reduced_precision_sums": True,
        "kernels_chosen_by_timing": True,
        "cublas_workspace": None,
    }
    cuda.fix_arithmetic("cpu")
    assert cuda.arithmetic("cuda")["tf32"] and cuda.arithmetic("cpu") is None
    cuda.fix_arithmetic("cuda")
    assert cuda.arithmetic("cuda") == {
        "tf32": False,
        "reduced_precision_sums": False,
        "kernels_chosen_by_timing": False,
        "cublas_workspace": ":4096:8",
    }


def test_a_stream_names_the_gpu_and_its_libraries(installed, monkeypatch):
    installed("13.0", "580.95.05")
    card = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(cuda, "_cublas", lambda cuda: 130101)
    assert lockstep.machine(torch.device("cuda")) == "NVIDIA H100 sm_90 132 CUDA 13.0 cuDNN 91002 cuBLAS 130101"
    assert cuda.about("cuda")["driver"] == "580.95.05" and cuda.about("cpu") is None


def test_a_cublas_that_does_not_say_is_none(monkeypatch):
    assert cuda._cublas("0.0") is None


def test_a_stream_in_eight_bits_names_bitsandbytes():
    assert lockstep.software(SimpleNamespace(libraries=())) == f"torch {torch.__version__}"
    assert ", bitsandbytes 0." in lockstep.software(SimpleNamespace(libraries=("bitsandbytes",)))
