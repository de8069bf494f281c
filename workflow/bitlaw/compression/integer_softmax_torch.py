"""The softmax in integers by torch operations, for logits on a GPU: the same intervals as `integer_softmax`.

Where fused kernels are usable, one does it (see `interval_kernel`).
"""

from functools import cache

import numpy as np
import torch

from bitlaw.compression.integer_softmax import NOT_FINITE, code_length
from bitlaw.models.exact.arithmetic import C0, C1, C2, C3, C4, C5, C6, LOG2_E, LOWEST
from bitlaw.runtime import fused
from bitlaw.runtime.compiling import compiled

ELEMENTS = 1 << 23  # of one block of rows: 40 bytes each


def integers(logits, targets):
    """int64 `[7, rows]` on the device of `logits`, float32 `[rows, vocabulary]`, for `from_integers`; targets int64.

    Each step of `integer_softmax.intervals` is a torch operation of its own, so none is fused into a multiply-add, and
    what leaves a GPU is 56 bytes a token: the sum of weights before the target, its weight, the sum of all weights,
    that of all fine weights, the target's and the largest logit as the bits of a float32, and whether one is NaN or
    infinite.
    """
    if fused.usable(logits.device) and _kernel_agrees(logits.device):
        from bitlaw.compression import interval_kernel

        return interval_kernel.integers(logits, targets)
    return by_operations(logits, targets)


def by_operations(logits, targets):
    """`integers` without a kernel, in blocks of rows: about 40 bytes of memory a logit of a block."""
    rows = max(1, ELEMENTS // logits.shape[1])
    parts = zip(logits.split(rows), targets.to(logits.device).split(rows), strict=True)
    return torch.cat([_integers(*part) for part in parts], 1)


@cache
def _kernel_agrees(device):
    """Whether the kernel gives what the operations do, asked once a device; if not, kernels are refused there."""
    from bitlaw.compression import interval_kernel  # imports Triton

    random = np.random.default_rng(0)
    logits = (random.standard_normal((16, 5003)) * np.linspace(0.1, 30, 16)[:, None]).astype(np.float32)
    logits, targets = torch.from_numpy(logits).to(device), torch.from_numpy(random.integers(0, 5003, 16)).to(device)
    try:
        same = torch.equal(interval_kernel.integers(logits, targets), by_operations(logits, targets))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler or a driver lacks
        fused.refuse(device, f"the intervals' kernel fails: {str(error).partition(chr(10))[0]}")
        return False
    if not same:
        fused.refuse(device, "the intervals' kernel gives other integers")
    return same


def _integers(logits, targets):
    targets = targets[:, None]
    largest = logits.amax(1, keepdim=True)
    y = (logits - largest).mul_(float(LOG2_E)).clamp_(min=float(LOWEST))
    k = (y - 0.5).to(torch.int32)
    y -= k  # int32 to float32, exact
    p = torch.full_like(y, float(C6))
    for coefficient in (C5, C4, C3, C2, C1, C0):
        p.mul_(y).add_(float(coefficient))
    fine = p.mul_(1 << 24).to(torch.int64).bitwise_left_shift_(14).bitwise_right_shift_(k.neg_())
    weights = fine >> 12
    before = torch.arange(logits.shape[1], device=logits.device) < targets
    chosen = logits.gather(1, targets)
    return torch.stack(
        (
            (weights * before).sum(1),
            weights.gather(1, targets)[:, 0],
            weights.sum(1),
            fine.sum(1),
            chosen[:, 0].contiguous().view(torch.int32).long(),
            largest[:, 0].contiguous().view(torch.int32).long(),
            (~logits.isfinite()).any(1).long(),
        )
    )


@compiled
def _lengths(fine, logit, largest, lengths):
    for i in range(len(fine)):
        lengths[i] = code_length(fine[i], logit[i], largest[i])


def from_integers(rows, targets, vocabulary):
    """(starts, frequencies, totals, lengths) as of `integer_softmax.intervals`, from `integers` as a numpy array."""
    below, own, total, fine, logit, largest, bad = rows
    if bad.any():
        raise FloatingPointError(NOT_FINITE.format(row=bad.argmax()))
    lengths = np.empty(len(fine), dtype=np.float64)
    _lengths(fine, *(bits.astype(np.int32).view(np.float32) for bits in (logit, largest)), lengths)
    return (*(a.astype(np.uint64) for a in (below + targets, own + 1, total + vocabulary)), lengths)
