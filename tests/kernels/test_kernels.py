"""Kernels of rows of integers, linear layers and intervals give the bits of the plain operations and of the loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw.compression import integer_softmax, integer_softmax_torch
from bitlaw.models.exact import arithmetic
from bitlaw.models.exact import arithmetic_torch as exact
from repository import ROOT

pytestmark = pytest.mark.kernel
FEW = settings(max_examples=200 if torch.cuda.is_available() else 15, deadline=None)


def same_bits(found, expected):
    """Of float32 tensors: equal bits, whatever the bits of a NaN."""
    nan = expected.isnan()
    bits = found.view(torch.int32), expected.view(torch.int32)
    return found.shape == expected.shape and torch.equal(found.isnan(), nan) and torch.equal(*(b[~nan] for b in bits))


def rows(seed, shape, spread=10):
    """Rows of float32 of magnitudes from row to row 2^-spread to 2^spread; zeros, ties, subnormals and outliers."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * np.exp2(random.integers(-spread, spread + 1, (*shape[:-1], 1)))
    kinds = random.integers(0, 8, shape[:-1])
    x[kinds == 0] = 0
    x[kinds == 1] *= 2.0**-140
    x[kinds == 2, random.integers(shape[-1])] = 2.0 ** random.integers(-20, 100)
    halves = random.integers(-40000, 40000, shape) / 2.0
    return torch.from_numpy(np.where((kinds == 3)[..., None], halves, x).astype(np.float32))


@FEW
@given(st.integers(1, 9), st.integers(1, 300), st.integers(0, 2**31), st.sampled_from((3, 60, 119)))
def test_digits_of_rows(kernels, device, count, numbers, seed, spread):
    x = rows(seed, (count, numbers), spread).to(device)
    for given_rows in (x, x[:, numbers // 3 :], x.t().contiguous().t()):
        digits, scales = kernels.digits_of_rows(given_rows, exact.up(numbers))
        expected, expected_scales = exact.digits_of_rows(given_rows)
        good = ~expected_scales[:, 0].isnan()
        size = given_rows.shape[1]
        assert torch.equal(digits[:, good, :size], expected[:, good]) and not digits[:, good, size:].any()
        assert same_bits(scales, expected_scales)


@pytest.mark.parametrize("numbers", [1023, 1024, 2500])
def test_digits_of_long_rows_and_of_every_shape(kernels, device, numbers):
    x = rows(numbers, (2, 3, numbers)).to(device)
    digits, scales = kernels.digits_of_rows(x)
    expected = exact.digits_of_rows(x)
    assert torch.equal(digits, expected[0]) and same_bits(scales, expected[1])


def test_digits_of_rows_are_those_of_the_compiled_loop(kernels, device):
    x = rows(5, (40, 77))
    digits, scales = (part.cpu().numpy() for part in kernels.digits_of_rows(x.to(device)))
    for r, row in enumerate(x.numpy()):
        high, low = np.empty((2, 77), dtype=np.int16)
        scale, large = arithmetic.quantise_digits(row, high, low)
        assert not large and scale == scales[r, 0]
        assert np.array_equal(high, digits[0, r]) and np.array_equal(low, digits[1, r])


def matrix(seed, outputs, inputs, device, spread=10):
    """A Matrix as `digits` makes it, sizes multiples of UNIT, and its float64 integers."""
    random = np.random.default_rng(seed)
    q = random.integers(-(1 << 14), (1 << 14) + 1, (outputs, inputs))
    q[0], q[-1] = 1 << 14, -(1 << 14)
    q[1] = 63 * 256 - 128  # the lowest digit of all
    scale = np.exp2(random.integers(-spread, spread, outputs)).astype(np.float32)
    bias = (random.standard_normal(outputs) * random.integers(0, 2)).astype(np.float32)
    digits = exact.split(torch.from_numpy(q).to(torch.int32), 2)
    return exact.Matrix(*(t.to(device) for t in (digits, torch.from_numpy(scale), torch.from_numpy(bias)))), q


@FEW
@given(
    st.one_of(st.integers(1, 20), st.sampled_from((63, 64, 65, 129, 150))),
    st.sampled_from((1, 2, 4, 5, 9, 11)),
    st.sampled_from((1, 3, 4, 5, 9)),
    st.integers(0, 15),
    st.integers(0, 2**31),
    st.sampled_from((3, 58)),
)
def test_linear(kernels, device, count, outputs, inputs, lacking, seed, spread):
    own, q = matrix(seed, 16 * outputs, 16 * inputs, device, spread)
    x = rows(seed, (count, 16 * inputs - lacking), spread).to(device)
    expected = exact.linear(x, own)
    assert same_bits(kernels.linear(x, own), expected)
    columns = 16 * outputs - lacking
    buffer = torch.full((count + 1, columns), 7.0, device=device)
    kernels.linear(x, own, buffer[:count])
    assert same_bits(buffer[:count], expected[:, :columns].contiguous()) and (buffer[count] == 7).all()
    # and by exact sums of another library
    integers, scales = (part.cpu() for part in exact.quantise(x, exact.Q15))
    sums = (integers.double().numpy() @ q[:, : x.shape[1]].T.astype(np.float64)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        by_numpy = sums * scales.numpy() * own.scale.cpu().numpy() + own.bias.cpu().numpy()
    assert same_bits(expected.cpu(), torch.from_numpy(by_numpy))


@pytest.mark.parametrize("inputs", [1 << 16, (1 << 16) + 16])
def test_linear_of_the_longest_sums(kernels, device, inputs):
    """2^16 products of the largest digits just fit in 32 bits; longer sums are left to the plain operations."""
    own, q = matrix(0, 16, inputs, device)
    x = torch.from_numpy(q[:5].astype(np.float32)).to(device)
    x[2] = -x[1]
    assert same_bits(kernels.linear(x, own), exact.linear(x, own))
    buffer = torch.empty((5, 9), device=device)
    assert same_bits(kernels.linear(x, own, buffer), exact.linear(x, own)[:, :9].contiguous())


def test_nothing_of_nothing(kernels, interval_kernel, device):
    own, _ = matrix(0, 16, 16, device)
    assert kernels.linear(torch.empty((0, 16), device=device), own).shape == (0, 16)
    nothing = torch.empty(0, dtype=torch.int64)
    assert interval_kernel.integers(torch.empty((0, 9), device=device), nothing).shape == (7, 0)


# --- intervals ------------------------------------------------------------------------------------------------------


def check_intervals(interval_kernel, device, logits, targets):
    logits, targets = torch.from_numpy(logits).to(device), torch.from_numpy(targets)
    found = interval_kernel.integers(logits, targets)
    expected = integer_softmax_torch.by_operations(logits, targets)
    good = expected[6] == 0
    assert torch.equal(found[6], expected[6]) and torch.equal(found[:, good], expected[:, good])
    if good.all():
        loops = integer_softmax.intervals(logits.cpu().numpy(), targets.numpy())
        made = integer_softmax_torch.from_integers(found.cpu().numpy(), targets.numpy(), logits.shape[1])
        assert all(np.array_equal(a, b) for a, b in zip(made, loops, strict=True))


@FEW
@given(st.integers(1, 5), st.integers(1, 400), st.integers(0, 2**31), st.sampled_from((0.01, 1, 9, 60, 1e30)))
def test_intervals(interval_kernel, device, count, vocabulary, seed, spread):
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((count, vocabulary)) * spread).astype(np.float32)
    logits[random.integers(count)] = random.choice(np.array([-0.0, 0.0, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32))
    check_intervals(interval_kernel, device, logits, random.integers(0, vocabulary, count))


@pytest.mark.parametrize("vocabulary", [2047, 2048, 2049, 50304])
def test_intervals_of_a_large_vocabulary(interval_kernel, device, vocabulary):
    random = np.random.default_rng(vocabulary)
    logits = (random.standard_normal((5, vocabulary)) * 5).astype(np.float32)
    logits[3] -= 300
    check_intervals(interval_kernel, device, logits, np.array([0, 1, vocabulary // 2, vocabulary - 2, vocabulary - 1]))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_intervals_of_what_is_not_finite_are_refused(interval_kernel, device, value):
    logits = np.zeros((3, 70), dtype=np.float32)
    logits[1, 69] = value
    check_intervals(interval_kernel, device, logits, np.array([1, 69, 5]))


def test_intervals_of_part_of_a_buffer(interval_kernel, device):
    whole = torch.randn((4, 90), device=device)
    targets = torch.tensor([0, 69, 12, 33])
    for part in (whole[:, :70], whole[:, 20:], whole.t().contiguous().t()):
        expected = integer_softmax_torch.by_operations(part, targets)
        assert torch.equal(interval_kernel.integers(part, targets), expected)


def test_what_the_report_times_runs(kernels, device, monkeypatch):
    """At tiny sizes; tests/gpu/report.py takes a 1.4B model's on a card."""
    monkeypatch.syspath_prepend(ROOT / "tests/gpu")
    import speeds

    sizes = {"rows": 4, "width": 32, "mlp": 48, "heads": 2, "sequences": 2, "vocabulary": 90, "head_rows": 2}
    found = [what for what, *_ in speeds.measure(device, sizes, 1)]
    assert [what.partition(",")[0] for what in found] == ["linear", "linear", "attention", "intervals"]
