"""CUDA as torch uses it on this process's GPU: whether it can, in which arithmetic, and what is there."""

import ctypes
import gc
import os
import re
import subprocess

from bitlaw import InputError

DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}  # the oldest on Linux that runs each CUDA
WORKSPACE = ":4096:8"  # of cuBLAS, which chooses among kernels by its size


def driver():
    """Version of the NVIDIA driver, as nvidia-smi says; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.match(r"\d+(\.\d+)+$", found, re.M)  # of the first GPU; all have one driver
    return version[0] if version else None


def why_not(torch_version, built_for, driver):
    """Why torch of that version, built for that CUDA (None: for processors), cannot use a GPU of that driver, if so.

    None where the driver is new enough, or nobody knows it.
    """
    if built_for is None:
        return f"torch {torch_version} is built for processors only; install a build for CUDA (docs/cluster.md)"
    needed = DRIVERS.get(int(built_for.split(".")[0]))
    if driver is None or needed is None or _numbers(driver) >= _numbers(needed):
        return None
    fitting = [cuda for cuda, oldest in DRIVERS.items() if _numbers(driver) >= _numbers(oldest)]
    remedy = f"install a build of torch for CUDA {max(fitting)} (docs/cluster.md)" if fitting else "update the driver"
    return (
        f"torch {torch_version} is built for CUDA {built_for}, which needs driver {needed}; here is {driver}; {remedy}"
    )


def _numbers(version):
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def check(device):
    """Raise InputError when `device` is "cuda" and torch cannot use the GPU that is there."""
    if device == "cpu":
        return
    import torch

    if torch.cuda.is_available():
        return
    here = driver()
    reason = why_not(torch.__version__, torch.version.cuda, here) or (
        f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, cannot use the GPU here (driver {here}); "
        "see what nvidia-smi says of it"
    )
    raise InputError(f"device: 'cuda' given, but {reason} or choose cpu")


def fix_arithmetic(device):
    """On "cuda", let floating-point products be what their dtype says, by kernels that are chosen by shapes alone.

    Inputs are not rounded to TF32, sums of halves are kept in float32, and no kernel is chosen by timing it. Must come
    before the first product of this process.
    """
    if device == "cpu":
        return
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACE
    products = torch.backends.cuda.matmul
    products.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    products.allow_fp16_reduced_precision_reduction = products.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = False
    if torch.version.cuda is not None:
        torch.cuda.tunable.enable(False)


def arithmetic(device):
    """What `fix_arithmetic` sets, as it is now, for a cell's json; None on a processor."""
    if device == "cpu":
        return None
    import torch

    products = torch.backends.cuda.matmul
    return {
        "tf32": products.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "reduced_precision_sums": bool(
            products.allow_fp16_reduced_precision_reduction or products.allow_bf16_reduced_precision_reduction
        ),
        "kernels_chosen_by_timing": torch.backends.cudnn.benchmark
        or (torch.version.cuda is not None and torch.cuda.tunable.is_enabled()),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def about(device):
    """What chooses kernels on `device`: the GPU and its libraries by name, for a cell's json; None on a processor."""
    if str(device) == "cpu":
        return None
    import torch

    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": f"sm_{found.major}{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "cuBLAS": _cublas(torch.version.cuda),
        "driver": driver(),
    }


def _cublas(cuda):
    """Version of cuBLAS in this process, as it counts: 120502 is 12.5.2. None where it does not say."""
    try:
        library = ctypes.CDLL(f"libcublasLt.so.{cuda.split('.')[0]}")  # the one that torch has loaded
        library.cublasLtGetVersion.restype = ctypes.c_size_t
        return library.cublasLtGetVersion()
    except (OSError, AttributeError):
        return None


def give_back_memory(device):
    """Give memory that no tensor holds any more back to the device, for another process to take."""
    if device == "cpu":
        return
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def peak_memory(device):
    """{"peak_device_memory_bytes": of this process so far} on "cuda", else {}."""
    if device == "cpu":
        return {}
    import torch

    return {"peak_device_memory_bytes": torch.cuda.max_memory_allocated()}
