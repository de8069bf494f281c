"""What `bitlaw doctor` says: whether this machine computes the known answers, and what kind of machine it is."""

import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil

from bitlaw.runtime import cuda

PACKAGES = ("numpy", "numba", "llvmlite", "tokenizers", "safetensors", "torch", "transformers", "snakemake")
# variables that choose kernels, threads, devices and folders; no others, which may hold secrets
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TMPDIR", "XDG_CACHE_HOME")
PREFIXES = ("ATEN_", "KMP_", "MKL_", "NUMBA_", "OMP_", "OPENBLAS_")
DIGITS = 12  # of a hash that are printed
WIDTH, COLUMN = 24, 16  # characters of names and of hashes


def report(show=print):
    """Pass the report to `show`, line by line; returns one line that says what is wrong, or None if nothing is.

    Raises InputError where there is no table of known answers.
    """
    from bitlaw.compression import known_answers

    for line in machine():
        show(line)
    table = known_answers.read_table(known_answers.TABLE)
    names, engines = known_answers.all_names(table), known_answers.ENGINES | _engines_of_torch()
    show("")
    show(
        f"known answers of exact arithmetic, version {table['arithmetic']} (sha256, {DIGITS} digits), and what is "
        "computed here by each engine:"
    )
    show(_line("", "  ".join(f"{title:{COLUMN}}" for title in ("expected", *engines)).rstrip()))
    wrong = []
    for name, expected, found in known_answers.compute(table, names, engines):
        differ = [engine for engine, value in found.items() if value != expected]
        cells = [_said(expected), *map(_said, found.values()), "DIFFERS" if differ else "agrees"]
        show(_line(name, "  ".join(f"{cell:{COLUMN}}" for cell in cells).rstrip()))
        wrong += [f"{name} by {engine}" for engine in differ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return (
            f"this machine does not compute the known answers ({', '.join(wrong[:3])}{more}): streams of precision "
            "exact made here may decode nowhere else; report it with all of the above"
        )
    show(f"all {len(names)} agree")
    return None


def _engines_of_torch():
    """Title to engine of those that need torch: on the processor, and on a GPU that torch can use."""
    if find_spec("torch") is None:
        return {}
    import torch

    from bitlaw.compression.known_answers import by_digits, by_kernels
    from bitlaw.runtime import fused

    devices = [device for device in ("cpu", "cuda") if device == "cpu" or torch.cuda.is_available()]
    return {f"int8, {device}": by_digits(device) for device in devices} | {
        f"kernels, {device}": by_kernels(device) for device in devices if fused.usable(device)
    }


def _said(value):
    """What a column shows of a hash, of a missing one, or of the error in its place."""
    if isinstance(value, Exception):
        return f"fails ({type(value).__name__}: {(str(value).splitlines() or [''])[0]})"
    return value[:DIGITS] if value else "not in table"


# --- the machine ----------------------------------------------------------------------------------------------------


def machine():
    """Yield a line for each thing that a bug report should name: versions, processor, memory, GPU, folders and more."""
    yield _line("bitlaw", _version("bitlaw"))
    yield _line("Python", f"{platform.python_version()} ({sys.executable})")
    for name in PACKAGES:
        yield _line(name, _version(name) + (_cuda_of_torch() if name == "torch" else ""))
    yield _line("matrix products", _blas())
    yield _line("system", platform.platform())
    yield _line("processor", _processor())
    yield _line("cores", f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} for this process")
    yield _line("memory", _memory())
    for line in _gpus():
        yield _line("GPU", line)
    if (driver := cuda.driver()) and find_spec("torch"):
        yield _line("torch on it", cuda.why_not(version("torch"), _built_for(), driver) or "its driver is new enough")
    for name, folder in _folders():
        yield _line(name, _disk(folder))
    given = [name for name in sorted(os.environ) if name in VARIABLES or name.startswith(PREFIXES)]
    yield _line("variables", ", ".join(f"{name}={os.environ[name]}" for name in given) or "none that matter are set")


def _line(name, text):
    return f"{name:{WIDTH}}{text}"


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cuda_of_torch():
    if find_spec("torch") is None:
        return ""
    built_for = _built_for()
    return f", built for CUDA {built_for}" if built_for else ", built for processors only"


def _built_for():
    """The CUDA that the installed torch was built for, None for processors; it is not imported, which takes seconds."""
    about = Path(find_spec("torch").origin).with_name("version.py")
    return runpy.run_path(str(about)).get("cuda") if about.exists() else None


def _blas():
    import numpy as np

    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{built.get('name')} {built.get('version')}"


def _processor():
    from llvmlite import binding

    model = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    for line in about.read_text().splitlines() if about.exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {platform.machine()}, compiled for as {binding.get_host_cpu_name()}"


def _memory():
    found = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    allowed = limit.read_text().strip() if limit.exists() else "max"
    text = f"{_size(found.total)}, free {_size(found.available)}"
    return text if allowed == "max" else f"{text}, allowed {_size(int(allowed))}"


def _gpus():
    """A line for each GPU that the driver shows, or one that says why there is none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return ["none: no nvidia-smi here" if isinstance(error, OSError) else f"unknown: {error}"]
    lines = listed.stdout.splitlines()
    if listed.returncode or not lines:
        return [f"none: nvidia-smi says {(listed.stdout + listed.stderr).strip()!r}"]
    return [f"{gpu}, memory {total}, free {free}, driver {driver}" for gpu, total, free, driver in
            (line.split(", ") for line in lines)]  # fmt: skip


def _folders():
    """(what for, folder) of those that bitlaw and its libraries write to."""
    from bitlaw.compression import integer_softmax

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (
        ("compiled loops", Path(integer_softmax.frequencies.stats.cache_path)),
        ("models of the Hub", Path(os.environ.get("HF_HOME") or home / "huggingface")),
        ("temporary files", Path(tempfile.gettempdir())),
        ("here", Path.cwd()),
    )


def _disk(folder):
    there = next(path for path in (folder, *folder.parents) if path.exists())
    text = f"{folder}, free {_size(shutil.disk_usage(there).free)}"
    if there != folder:
        text += ", not there yet"
    return text if os.access(there, os.W_OK) else f"{text}, READ-ONLY"


def _size(count):
    return f"{count / 2**30:.1f} GiB"
