"""How long kernels take beside the plain operations that they stand for, at Pythia-1.4B's sizes or any others."""

import time

import torch

from bitlaw.compression import integer_softmax_torch
from bitlaw.models.exact import arithmetic_torch as exact
from bitlaw.models.exact import digits

SIZES = {"rows": 4096, "width": 2048, "mlp": 8192, "heads": 16, "sequences": 2, "vocabulary": 50304, "head_rows": 512}


def seconds(function, device, times):
    """Of one call, after one that compiles."""
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    function()
    wait()
    start = time.perf_counter()
    for _ in range(times):
        function()
    wait()
    return (time.perf_counter() - start) / times


def measure(device="cuda", sizes=SIZES, times=10):
    """Yield (what, seconds by kernels, seconds by plain operations, rate of kernels and its unit)."""
    from bitlaw.compression import interval_kernel
    from bitlaw.models.exact import attention_kernel, kernels

    rows, width, heads, sequences = (sizes[name] for name in ("rows", "width", "heads", "sequences"))
    for outputs, count in ((sizes["mlp"], rows), (sizes["mlp"], 1)):
        matrix = exact.Matrix(
            torch.randint(-64, 64, (2, outputs, width), dtype=torch.int8, device=device),
            torch.full((outputs,), 2.0**-14, device=device),
            torch.zeros(outputs, device=device),
        )
        x = torch.randn((count, width), device=device)
        own = seconds(lambda x=x, m=matrix: kernels.linear(x, m), device, times)
        plain = seconds(lambda x=x, m=matrix: exact.linear(x, m), device, times)
        rate = f"{4 * 2 * count * width * outputs / own / 1e12:.3g} T/s of int8 products"
        yield f"linear, {count} × {width} × {outputs}", own, plain, rate

    size, tokens = width // heads, rows // sequences
    positions, padded = exact.up(tokens), exact.up(size)
    queries = torch.randint(-64, 64, (2, sequences, tokens, heads, size), dtype=torch.int8, device=device)
    scales = torch.full((sequences, tokens, heads, 1), 2.0**-24, device=device)
    keys = torch.randint(-64, 64, (sequences, heads, 2, positions, padded), dtype=torch.int8, device=device)
    ones = torch.ones((sequences, heads, positions), device=device)
    cache = digits.Cache(keys, ones, keys.mT.contiguous(), ones)
    own = seconds(lambda: attention_kernel.attend(queries, scales, 0, cache), device, times)
    pairs = sequences * heads * tokens * (tokens + 1) / 2
    rate = f"{(8 + 6) * 2 * pairs * size / own / 1e12:.3g} T/s of int8 products"
    yield f"attention, {sequences} × {tokens} tokens, {heads} heads of {size}", own, None, rate

    logits = torch.randn((sizes["head_rows"], sizes["vocabulary"]), device=device)
    targets = torch.zeros(len(logits), dtype=torch.int64, device=device)
    own = seconds(lambda: interval_kernel.integers(logits, targets), device, times)
    plain = seconds(lambda: integer_softmax_torch.by_operations(logits, targets), device, times)
    rate = f"{4 * logits.numel() / own / 1e9:.3g} GB/s of logits read once"
    yield f"intervals, {len(logits)} × {sizes['vocabulary']}", own, plain, rate
