"""The softmax in integers as one fused kernel, in Triton: what `integer_softmax_torch` gives, to the last bit.

Logits are read twice by one program, the second time from the card's cache; 56 bytes a row are written. Import it where
`runtime.fused` says that kernels are usable: it needs Triton.
"""

import torch
import triton
import triton.language as tl

from bitlaw.models.exact.kernels import UNFUSED, exponential

BLOCK = 2048  # logits at a time


@triton.jit(do_not_specialize=["rows"])
def _intervals(logits, stride, targets, out, rows, vocabulary, BLOCK: tl.constexpr):
    """One row a program, into the seven numbers of `integer_softmax_torch.integers`."""
    row = tl.program_id(0)
    logits += row.to(tl.int64) * stride
    target = tl.load(targets + row)
    # the largest, as integers in the order of floats
    keys = tl.full([BLOCK], -(2**31), tl.int32)
    bad = tl.zeros([BLOCK], tl.int32)
    for first in range(0, vocabulary, BLOCK):
        at = first + tl.arange(0, BLOCK)
        bits = tl.load(logits + at, mask=at < vocabulary, other=float("-inf")).to(tl.int32, bitcast=True)
        bad |= ((bits & 0x7F800000) == 0x7F800000).to(tl.int32) & (at < vocabulary).to(tl.int32)
        keys = tl.maximum(keys, bits ^ ((bits >> 31) & 0x7FFFFFFF))
    key = tl.max(keys, 0)
    largest = (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    below = tl.zeros([BLOCK], tl.int64)
    total = tl.zeros([BLOCK], tl.int64)
    total_fine = tl.zeros([BLOCK], tl.int64)
    for first in range(0, vocabulary, BLOCK):
        at = first + tl.arange(0, BLOCK)
        p, k = exponential(tl.load(logits + at, mask=at < vocabulary, other=float("-inf")) - largest)
        fine = ((p * 16777216.0).to(tl.int32).to(tl.int64) << 14) >> (-k).to(tl.int64)
        fine = tl.where(at < vocabulary, fine, 0)
        weights = fine >> 12
        below += tl.where(at < target, weights, 0)
        total += weights
        total_fine += fine
    logit = tl.load(logits + target)
    p, k = exponential(logit - largest)
    own = (((p * 16777216.0).to(tl.int32).to(tl.int64) << 14) >> (-k).to(tl.int64)) >> 12
    out += row
    step = rows.to(tl.int64)
    tl.store(out, tl.sum(below, 0))
    tl.store(out + step, own)
    tl.store(out + 2 * step, tl.sum(total, 0))
    tl.store(out + 3 * step, tl.sum(total_fine, 0))
    tl.store(out + 4 * step, logit.to(tl.int32, bitcast=True).to(tl.int64))
    tl.store(out + 5 * step, largest.to(tl.int32, bitcast=True).to(tl.int64))
    tl.store(out + 6 * step, tl.max(bad, 0).to(tl.int64))


def integers(logits, targets):
    """`integer_softmax_torch.integers`."""
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    rows, vocabulary = logits.shape
    targets = targets.to(logits.device).contiguous()
    out = torch.empty((7, rows), dtype=torch.int64, device=logits.device)
    if rows:
        block = min(BLOCK, triton.next_power_of_2(vocabulary))
        given = logits, logits.stride(0), targets, out, rows, vocabulary
        _intervals[(rows,)](*given, BLOCK=block, num_warps=8, **UNFUSED)
    return out
