"""Whether fused kernels compute on a device, or the plain torch operations that they stand for.

Kernels are written in Triton, which comes with torch's builds for CUDA; a module that imports it is imported where
`usable` says so and nowhere else. On a processor they run in Triton's interpreter, for tests: TRITON_INTERPRET=1.
"""

import contextlib
import logging
import os
from importlib.util import find_spec

import torch

log = logging.getLogger("bitlaw")
_refused = set()  # types of devices


def usable(device):
    """Whether kernels are to be used on `device`, a torch device or its name. Says so once where Triton lacks."""
    kind = torch.device(device).type
    if kind in _refused or (kind != "cuda" and os.environ.get("TRITON_INTERPRET") != "1"):
        return False
    if find_spec("triton") is None:
        refuse(device, "Triton is not installed")
        return False
    return True


def refuse(device, reason):
    """Use no kernels on devices of this type from now on in this process; logs one line."""
    _refused.add(torch.device(device).type)
    log.warning("%s: no fused kernels, the same integers by plain torch operations, slower (%s)", device, reason)


@contextlib.contextmanager
def plain(device):
    """Use no kernels on devices of this type within a `with` block."""
    kind = torch.device(device).type
    before = kind in _refused
    _refused.add(kind)
    try:
        yield
    finally:
        if not before:
            _refused.discard(kind)
