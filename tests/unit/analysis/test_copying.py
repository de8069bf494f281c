"""Copying: random tokens that come twice, on models that do and do not look back."""

import math

import numpy as np
import pytest
import torch

from bitlaw import InputError
from bitlaw.analysis import copying

VOCABULARY = 300


class LooksBack:
    """Expects after each token, with a logit of `sureness` over all others, what followed that token last time."""

    vocabulary, context, prefix, device = VOCABULARY, 128, None, torch.device("cpu")

    def __init__(self, sureness):
        self.sureness = sureness

    def hidden(self, ids):
        states = torch.zeros(*ids.shape, VOCABULARY)
        for row, sequence in enumerate(ids.tolist()):
            followed = {}
            for i, token in enumerate(sequence):
                if token in followed:
                    states[row, i, followed[token]] = self.sureness
                if i + 1 < len(sequence):
                    followed[token] = sequence[i + 1]
        return states

    def head(self, rows, out=None):
        return rows.contiguous()


def test_sequences_are_random_tokens_twice():
    found = copying.sequences(VOCABULARY, 5000, 2)
    for ids in found:
        np.testing.assert_array_equal(ids[:5000], ids[5000:])
        assert set(ids.tolist()) == set(range(VOCABULARY))
    assert (found[0] != found[1]).any()


def test_the_first_token_of_either_half_does_not_count():
    assert copying.halves(np.array([100.0, 1, 3, 200, 5, 9])) == (2.0, 7.0)


def test_a_model_without_a_memory_pays_twice_the_same():
    found = copying.measure(LooksBack(0), VOCABULARY, 32, 4, 1024)
    assert found.first == pytest.approx(math.log2(VOCABULARY), abs=1e-6)
    assert found.second == pytest.approx(math.log2(VOCABULARY), abs=1e-6)
    assert found.ratio == pytest.approx(1)
    assert found.ratio_error == pytest.approx(0, abs=1e-9)


def test_a_model_that_looks_back_pays_once(monkeypatch):
    once = [np.tile(np.random.default_rng(i).permutation(VOCABULARY)[:32], 2) for i in range(4)]  # no token twice in r
    monkeypatch.setattr(copying, "sequences", lambda *_: once)
    sureness = 9.0
    found = copying.measure(LooksBack(sureness), VOCABULARY, 32, 4, 1024)
    assert found.first == pytest.approx(math.log2(VOCABULARY), abs=1e-6)
    assert found.second == pytest.approx(math.log2(1 + (VOCABULARY - 1) * math.exp(-sureness)), abs=1e-3)
    assert found.ratio == pytest.approx(found.second / found.first)


def test_the_error_is_that_of_the_mean_over_draws():
    few, many = (copying.measure(LooksBack(4), VOCABULARY, 64, draws, 4096) for draws in (8, 128))
    assert 0 < many.second_error < few.second_error
    assert abs(few.second - many.second) < 4 * (few.second_error + many.second_error)


def test_a_checkpoint_is_measured(neox):
    found = copying.measure(neox, VOCABULARY, 100, 8, 4096)
    assert found.first > 1
    assert found.second > 1


@pytest.mark.parametrize(("length", "draws", "said"), [(65, 4, "length 65"), (1, 4, "length 1"), (32, 1, "draws 1")])
def test_what_cannot_be_measured_is_refused(length, draws, said):
    with pytest.raises(InputError, match=said):
        copying.measure(LooksBack(4), VOCABULARY, length, draws, 1024)
