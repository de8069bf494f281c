"""Logits to integer intervals: exactly as documented, the same on both sides, and each token scored once."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitlaw import InputError
from bitlaw.compression import integer_softmax, integer_softmax_torch, scoring, torch_scoring
from bitlaw.models import checkpoint
from bitlaw.models.exact.digits import Digits
from bitlaw.runtime import gpu_memory

F32 = np.float32


def documented_weights(row):
    """The weights of docs/format.md, step by step in numpy's float32."""
    y = (row - row.max()) * F32(1.4426950408889634)
    y = np.where(y > -60, y, F32(-60))
    k = np.trunc(y - F32(0.5)).astype(np.int64)
    f = y - k.astype(F32)
    p = F32(math.log(2) ** 6 / 720)
    for n in (5, 4, 3, 2, 1, 0):
        p = p * f + F32(math.log(2) ** n / math.factorial(n))
    assert p.dtype == np.float32
    return (np.trunc(p * F32(2**24)).astype(np.int64) << 14) >> -k >> 12


def frequencies_of(row):
    """(frequencies, total) as a decoder computes them."""
    out = np.empty(len(row), dtype=np.uint64)
    return out, integer_softmax.frequencies(row, out)


def rows_of_logits(spread=40.0):
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 70))
    return arrays.arrays(np.float32, shapes, elements=st.floats(-spread, spread, width=32))


@settings(max_examples=100, deadline=None)
@given(rows_of_logits(), st.integers(0, 2**32 - 1))
@example(np.array([[0.0, -0.0, 1e-45, -1e-45]], dtype=np.float32), 0)
@example(np.array([[3.4e38, -3.4e38, 0.0, 1.0]], dtype=np.float32), 1)
@example(np.array([[-3.4e38, -3.3e38]], dtype=np.float32), 0)
def test_intervals_are_as_documented_and_as_the_decoder_sees_them(logits, seed):
    targets = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))
    with np.errstate(over="ignore"):
        starts, frequencies, totals, _ = integer_softmax.intervals(logits, targets)
        for i, target in enumerate(targets):
            all_of_them, total = frequencies_of(logits[i])
            assert all_of_them.tolist() == (documented_weights(logits[i]) + 1).tolist() and total == all_of_them.sum()
            cumulative = np.cumsum([0, *all_of_them], dtype=np.uint64)
            assert (starts[i], starts[i] + frequencies[i]) == (cumulative[target], cumulative[target + 1])
            assert totals[i] == cumulative[-1]


@pytest.mark.parametrize("size", [1, 7, 64, 50304])
def test_a_large_row_is_as_documented_for_every_kind_of_target(size):
    row = (np.random.default_rng(size).standard_normal(size) * 4).astype(np.float32)
    targets = np.unique([0, size // 3, int(row.argmax()), int(row.argmin()), size - 1])
    starts, frequencies, totals, _ = integer_softmax.intervals(np.tile(row, (len(targets), 1)), targets)
    cumulative = np.cumsum([0, *(documented_weights(row) + 1)])
    assert starts.tolist() == cumulative[targets].tolist() and set(totals.tolist()) == {cumulative[-1]}
    assert frequencies.tolist() == (cumulative[targets + 1] - cumulative[targets]).tolist()
    assert np.cumsum(frequencies_of(row)[0]).tolist() == cumulative[1:].tolist()


def test_weights_are_the_exponential():
    difference = -np.linspace(0, 45, 100001, dtype=np.float32)
    found = frequencies_of(difference)[0].astype(np.int64) - 1
    exact = np.exp(difference.astype(np.float64)) * 2**26
    assert found[0] == 2**26 and found[-1] == 0
    # float32's resolution of the exponent, |y| 2^-24, and of the polynomial, and the floor
    assert (np.abs(found - exact) <= exact * (np.abs(difference) + 4) * 2**-23 + 1).all()


@settings(max_examples=100, deadline=None)
@given(rows_of_logits())
def test_lengths_are_those_of_the_softmax(logits):
    for target in {0, logits.shape[1] // 2, logits.shape[1] - 1}:
        *_, lengths = integer_softmax.intervals(logits, np.full(len(logits), target))
        exact = torch.log_softmax(torch.from_numpy(logits.astype(np.float64)), -1)[:, target].numpy()
        assert np.abs(lengths + exact / math.log(2)).max() <= 1e-5


def test_lengths_of_a_large_vocabulary_are_those_of_the_softmax():
    logits = (np.random.default_rng(1).standard_normal((20, 50304)) * 5).astype(np.float32)
    logits[:5] *= 10
    targets = np.random.default_rng(2).integers(0, 50304, 20)
    _, frequencies, totals, lengths = integer_softmax.intervals(logits, targets)
    exact = -torch.log_softmax(torch.from_numpy(logits.astype(np.float64)), -1).numpy()[range(20), targets]
    assert np.abs(lengths - exact / math.log(2)).max() <= 1e-5
    assert (np.log2(totals / frequencies) <= lengths + math.log2(1 + 50304 / 2**26) + 1e-5).all()


def by_torch(logits, targets):
    """What a GPU computes, here on the processor."""
    targets = np.asarray(targets, dtype=np.int64)
    found = integer_softmax_torch.integers(torch.from_numpy(logits), torch.from_numpy(targets))
    return integer_softmax_torch.from_integers(found.numpy(), targets, logits.shape[1])


@settings(max_examples=100, deadline=None)
@given(rows_of_logits(), st.integers(0, 2**32 - 1), st.sampled_from([1, 100, 1 << 23]))
@example(np.array([[0.0, -0.0, 1e-45, -1e-45]], dtype=np.float32), 0, 1)
@example(np.array([[3.4e38, -3.4e38, 0.0, 1.0]], dtype=np.float32), 1, 1)
def test_torch_gives_the_same_bits_as_the_loop(logits, seed, elements):
    targets = np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(integer_softmax_torch, "ELEMENTS", elements)
        assert same(by_torch(logits, targets), integer_softmax.intervals(logits, targets))


@pytest.mark.parametrize("spread", [0.01, 5, 30])
def test_torch_gives_the_same_bits_at_a_large_vocabulary(spread):
    random = np.random.default_rng(6)
    logits = (random.standard_normal((50, 50304)) * spread).astype(np.float32)
    targets = random.integers(0, 50304, 50)
    found = by_torch(logits, targets)
    assert same(found, integer_softmax.intervals(logits, targets))
    assert [a.dtype for a in found] == [np.uint64] * 3 + [np.float64]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bits_as_the_loop():
    random = np.random.default_rng(7)
    logits = (random.standard_normal((600, 50304)) * 5).astype(np.float32)
    targets = random.integers(0, 50304, 600)
    found = integer_softmax_torch.integers(torch.from_numpy(logits).cuda(), torch.from_numpy(targets)).cpu().numpy()
    assert same(integer_softmax_torch.from_integers(found, targets, 50304), integer_softmax.intervals(logits, targets))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 37, 99])
def test_nan_and_infinity_raise(bad, place):
    logits = np.zeros((3, 100), dtype=np.float32)
    logits[1, place] = bad
    with pytest.raises(FloatingPointError, match="row 1"):
        integer_softmax.intervals(logits, [0, 1, 2])
    with pytest.raises(FloatingPointError, match="row 1"):
        by_torch(logits, [0, 1, 2])
    assert frequencies_of(logits[1])[1] == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3000), st.integers(2, 700))
@example(2048, 2048)
@example(2049, 2048)
@example(1, 2)
def test_windows_score_each_token_once_with_half_a_context_or_all_before_it(count, context):
    found = scoring.windows(count, context)
    scored = [i for w in found for i in range(w.first, w.end)]
    assert scored == list(range(1, count))
    for window in found:
        assert 0 <= window.begin < window.first < window.end <= window.begin + context
        assert window.begin == 0 or window.first - window.begin >= context / 2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(2, 300))
def test_a_token_has_the_same_context_however_many_follow(count, more, context):
    """What lets a decoder advance chunks of different lengths together."""

    def begins(n):
        return {i: w.begin for w in scoring.windows(n, context) for i in range(w.first, w.end)}

    assert begins(count).items() <= begins(count + more).items()


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def near(a, b):
    """Whether two Scores of a floating-point model differ by no more than its rounding."""
    return len(a.lengths) == len(b.lengths) and np.abs(a.lengths - b.lengths).max(initial=0) <= 1e-4


@pytest.fixture(scope="module")
def ragged(neox):
    random = np.random.default_rng(8)
    sizes = (0, 1, 2, 3, 20, 200, 300, 320, 310, 7, 321, 500, 1000)
    return [random.integers(0, neox.vocabulary, n).astype(np.int32) for n in sizes]


@pytest.mark.parametrize("threads", [1, 2])
def test_exact_scores_are_the_same_bits_on_any_number_of_threads_alone_and_together(exact, ragged, threads):
    together = scoring.score(exact, ragged, None, threads)
    for ids, own in zip(ragged, together, strict=True):
        assert same(scoring.score(exact, [ids], None)[0], own) and len(own.starts) == len(ids)


@pytest.mark.parametrize("tokens_at_a_time", [1, 700, 4000])
def test_scores_by_digits_are_the_same_bits_in_batches_of_any_size(exact, ragged, tokens_at_a_time):
    expected = scoring.score(exact, ragged, None)
    model = exact.digits()
    for model.device in (torch.device("cpu"), Device("cpu")):
        found = scoring.score(model, ragged, tokens_at_a_time)
        assert all(same(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("at", [0, 150, 199, 200])
def test_an_error_by_digits_is_found_wherever_it_is(exact, monkeypatch, at):
    """At a chunk's last token, too, from which nothing is predicted; in what only pads a batch it is none."""
    hidden = Digits.hidden

    def broken(self, ids, *given):
        states = hidden(self, ids, *given).clone()
        if len(states) == 2:  # a chunk of 200 tokens, then one of 300
            states[0, at:] = math.nan
        return states

    monkeypatch.setattr(Digits, "hidden", broken)
    chunks = [np.arange(n) % exact.vocabulary for n in (300, 5, 200, 5)]
    if at < 200:
        with pytest.raises(FloatingPointError, match="not a number|NaN or infinite"):
            scoring.score(exact.digits(), chunks, 1000)
    else:
        for pair in zip(scoring.score(exact.digits(), chunks, 1000), scoring.score(exact, chunks, None), strict=True):
            assert same(*pair)


@pytest.mark.parametrize("tokens_at_a_time", [1, 700, 4000])
def test_scores_hardly_depend_on_batching(neox, ragged, tokens_at_a_time):
    together = scoring.score(neox, ragged, 1600)
    found = scoring.score(neox, ragged, tokens_at_a_time, 2)
    assert all(near(*pair) for pair in zip(found, together, strict=True))


def test_exact_scores_are_near_those_in_floating_point(exact, neox, ragged):
    found = zip(scoring.score(exact, ragged, None), scoring.score(neox, ragged, 4000), strict=True)
    for a, b in found:
        # docs/arithmetic.md: operands of fifteen bits
        assert np.abs(a.lengths - b.lengths).max(initial=0) <= 0.05
        assert abs(a.lengths.sum() - b.lengths.sum()) <= 1e-4 * b.lengths.sum() + 1e-3


class Small:
    """A model that runs out of memory when more than `room` tokens pass at once."""

    def __init__(self, model, room, error=torch.OutOfMemoryError):
        self.model, self.room, self.error, self.sizes = model, room, error, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def hidden(self, ids):
        self.sizes.append(ids.numel())
        if ids.numel() > self.room:
            raise self.error("out of memory")
        return self.model.hidden(ids)


@pytest.mark.parametrize(("count", "room"), [(1, 700), (1, 320), (2, 600)])
def test_out_of_memory_halves_the_batch_and_goes_on(neox, ragged, caplog, count, room):
    expected = scoring.score(neox, ragged, 4000)
    before = torch.get_num_threads()
    small = Small(neox, room)
    with caplog.at_level("INFO", "bitlaw"):
        found = scoring.score(small, ragged, 4000, count)
    assert all(near(a, b) for a, b in zip(found, expected, strict=True))
    assert max(small.sizes) > room and torch.get_num_threads() == before
    assert "out of memory at 4000 tokens at a time: trying 2000" in caplog.text


def test_a_window_that_does_not_fit_is_one_line(neox, ragged):
    with pytest.raises(InputError, match="^cpu: one window of tokens does not fit in its memory"):
        scoring.score(Small(neox, 100), ragged, 4000)


def test_a_trial_pass_that_does_not_fit_is_the_same_line(neox, ragged, monkeypatch):
    def short(model, longest):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_memory, "tokens_at_a_time", short)
    with pytest.raises(InputError, match="^cpu: one window of tokens does not fit in its memory"):
        scoring.score(neox, ragged, None)


@pytest.mark.parametrize("precision", ["fp32", "exact"])
def test_code_lengths_alone_are_those_of_the_scores(neox_folder, ragged, precision):
    loaded = checkpoint.load(neox_folder, precision)
    for model in [loaded, loaded.digits()] if precision == "exact" else [loaded]:
        found = scoring.code_lengths(model, ragged, 1000, 2)
        for lengths, scores in zip(found, scoring.score(model, ragged, 1000, 2), strict=True):
            assert lengths.dtype == np.float64 and lengths.shape == scores.lengths.shape
            assert np.abs(lengths - scores.lengths).max(initial=0) <= (0 if precision == "exact" else 1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_code_lengths_of_logits_that_are_not_finite_are_refused(neox, ragged, wrong):
    broken = copy.copy(neox)
    broken.head = lambda rows, out=None: neox.head(rows).index_fill(1, torch.tensor([5]), wrong)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        scoring.code_lengths(broken, ragged, 1000)


def test_other_failures_of_a_device_are_not_taken_for_lack_of_memory(neox, ragged):
    with pytest.raises(torch.AcceleratorError):
        scoring.score(Small(neox, 700, torch.AcceleratorError), ragged, 4000)


class Device(str):
    """Passes for a GPU where it is asked what it is, and for the processor where tensors are made."""

    type = "cuda"


def test_scores_by_way_of_a_gpu_are_the_same(neox, ragged):
    model = Small(neox, 10**9)
    model.device = Device("cpu")
    for found, expected in zip(scoring.score(model, ragged, 1000), scoring.score(neox, ragged, 1000), strict=True):
        assert same(found, expected)


def test_the_token_budget_of_a_gpu_is_what_fits_in_its_free_memory(neox, monkeypatch):
    held = iter([1000, 1000 + (1 << 20)])
    for name, result in {
        "memory_allocated": lambda device: next(held),
        "max_memory_allocated": lambda device: next(held),
        "reset_peak_memory_stats": lambda device: None,
        "mem_get_info": lambda device: (10 << 20, 80 << 20),
    }.items():
        monkeypatch.setattr(torch.cuda, name, result)
    assert gpu_memory.tokens_at_a_time(neox, 300) == 7 * 300  # 70 % of 10 MiB, at 1 MiB a window


@pytest.mark.parametrize(("fixture", "tolerance"), [("neox_folder", 2e-4), ("gpt2_folder", 2e-4)])
def test_scores_are_those_of_the_windows_through_the_model(fixture, tolerance, request):
    model = checkpoint.load(request.getfixturevalue(fixture))
    ids = np.random.default_rng(4).integers(0, model.vocabulary, 2 * model.context + 7).astype(np.int32)
    (scores,) = scoring.score(model, [ids], 1)
    first = scores.starts[0], scores.frequencies[0], scores.totals[0], scores.lengths[0]
    assert first == (ids[0], 1, model.vocabulary, math.log2(model.vocabulary))
    half = model.context // 2
    for i in (1, half, model.context - 1, model.context, model.context + 1, model.context + half, len(ids) - 1):
        begin = 0 if i < model.context else (i - model.context) // half * half + half
        logits = model.head(model.hidden(torch.from_numpy(ids[None, begin:i].astype(np.int64)))[0])[-1].double()
        expected = -torch.log_softmax(logits, -1)[ids[i]].item() / math.log(2)
        assert scores.lengths[i] == pytest.approx(expected, abs=tolerance)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40), room=st.integers(1, 40))
def test_batches_of_equally_long_windows_hold_nothing_else(lengths, room):
    todo = [(number, scoring.Window(3, 3 + length, 4)) for number, length in enumerate(lengths)]
    batches = torch_scoring._batches(todo, room, 1, equally_long=True)
    assert sorted(number for batch in batches for number, _ in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len({window.end for _, window in batch}) == 1
        assert len(batch) == 1 or sum(window.end - window.begin for _, window in batch) <= room
