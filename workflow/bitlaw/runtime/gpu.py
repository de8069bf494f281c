"""GPUs of this machine, each lent to one process at a time, and what to say when one fails.

A lease is an exclusive lock (flock) on a file named after the GPU, in a directory of the user's; the kernel releases it
when the process ends, however it ends. Locks of other users and machines are not seen.
"""

import fcntl
import logging
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from bitlaw import InputError
from bitlaw.runtime.places import private_folder

log = logging.getLogger("bitlaw")

SECONDS_BETWEEN = 0.2  # of attempts while every GPU is taken


class DeviceError(RuntimeError):
    """A device failed in the middle of the work; the message is one line."""


def gpus():
    """Identifiers (UUIDs) of the GPUs that this process may use, in order: nvidia-smi's within CUDA_VISIBLE_DEVICES."""
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return listed
    visible = []
    for entry in filter(None, (e.strip() for e in allowed.split(","))):
        if entry.isdecimal():
            matching = listed[int(entry) : int(entry) + 1]
        else:  # a UUID, which may be shortened; a slice of a GPU (MIG) is not in the list and stands for itself
            matching = [entry] if entry.startswith("MIG") else [u for u in listed if u.startswith(entry)]
        if len(matching) != 1:
            break  # as CUDA does: what follows a name that it does not know is not seen
        visible += matching
    return visible


def _locked(gpu):
    """File descriptor of the locked file of `gpu`, or None when another process holds it."""
    file = os.open(private_folder() / f"{gpu}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


@contextmanager
def lease(device):
    """For "cuda", hold a GPU that no other process holds, waiting if need be, and make it the only one that CUDA sees.

    Must come before CUDA starts in this process, as CUDA_VISIBLE_DEVICES is read only then. Gives a function that ends
    the lease before the `with` block does, for what is left without the GPU. Does nothing for "cpu". Raises InputError
    when there is no GPU.
    """
    if device == "cpu":
        yield lambda: None
        return
    candidates = gpus()
    if not candidates:
        raise InputError(f"device: {device!r} given, but nvidia-smi shows no GPU here; choose cpu")
    waiting = False
    while True:
        for gpu in candidates:
            if (file := _locked(gpu)) is not None:
                break
        else:
            if not waiting:
                log.info("all of %d GPUs are taken: waiting for one", len(candidates))
                waiting = True
            time.sleep(SECONDS_BETWEEN)
            continue
        break
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    with ExitStack() as held:
        held.callback(os.close, file)
        try:
            yield held.close
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _torch():
    """torch where this process has imported it, else None: exact arithmetic does without, and no device has failed."""
    return sys.modules.get("torch")


@contextmanager
def failures(device):
    """Turn the failure of a CUDA device, and lack of memory that nothing less at a time helps, into a DeviceError of
    one line."""
    try:
        yield
    except RuntimeError as error:
        torch = _torch()
        if torch is None:
            raise
        first = (str(error).splitlines() or [""])[0]
        if isinstance(error, torch.OutOfMemoryError):
            raise DeviceError(
                f"{device}: out of memory ({first[:200]}); nothing was written: end what else runs there, or choose "
                "another device or a smaller model"
            ) from error
        if not (isinstance(error, torch.AcceleratorError) or first.startswith(("CUDA", "cuDNN", "NVML"))):
            raise
        raise DeviceError(f"{device}: the device failed ({first}); nothing was written, run this again") from error


@contextmanager
def room_for(device, what):
    """Turn lack of memory for `what` into InputError."""
    try:
        yield
    except RuntimeError as error:
        torch = _torch()
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(
            f"{device}: no room in its memory for {what} ({(str(error).splitlines() or [''])[0][:200]}); end what else "
            "runs there, or choose a precision of fewer bits, a smaller model or another device"
        ) from error
