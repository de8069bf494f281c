"""Where fused kernels are used, and what is said where they are not."""

import logging

import numpy as np
import pytest

from bitlaw import InputError
from bitlaw.compression import known_answers
from bitlaw.runtime import fused


@pytest.fixture(autouse=True)
def nothing_refused(monkeypatch):
    monkeypatch.setattr(fused, "_refused", set())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_without_triton_one_line_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, "bitlaw"):
        assert not fused.usable("cuda") and not fused.usable("cuda:0")
    assert [r.getMessage() for r in caplog.records] == [
        "cuda: no fused kernels, the same integers by plain torch operations, slower (Triton is not installed)"
    ]


def test_kernels_are_for_cards_and_for_the_interpreter(monkeypatch, caplog):
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    assert fused.usable("cuda") and not fused.usable("cpu")
    with fused.plain("cuda"):
        assert not fused.usable("cuda")
        with fused.plain("cuda"):
            pass
        assert not fused.usable("cuda")
    assert fused.usable("cuda")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert fused.usable("cpu") and not caplog.records


def wrong(model, ids):
    starts, frequencies, totals = known_answers.by_scoring(model, ids)
    return starts, frequencies, totals + np.uint64(1)


def failing(model, ids):
    raise RuntimeError("no\n compiler")


@pytest.mark.parametrize(("engine", "words"), [(wrong, "gives other integers"), (failing, "fails (no compiler)")])
def test_a_card_whose_kernels_differ_goes_on_without_them(monkeypatch, caplog, engine, words):
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    monkeypatch.setattr(known_answers, "by_digits", lambda device: known_answers.by_scoring)
    monkeypatch.setattr(
        known_answers,
        "by_kernels",
        lambda device: lambda *given: (engine if fused.usable(device) else known_answers.by_scoring)(*given),
    )
    with caplog.at_level(logging.WARNING, "bitlaw"):
        known_answers.check("cuda")
    (record,) = caplog.records
    assert f"(the known answer tiny/gpt_neox: {words})" in record.getMessage() and "\n" not in record.getMessage()
    assert not fused.usable("cuda")


def test_a_card_whose_plain_operations_differ_is_refused_whatever_kernels_say(monkeypatch):
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    monkeypatch.setattr(known_answers, "by_digits", lambda device: wrong)
    monkeypatch.setattr(known_answers, "by_kernels", lambda device: known_answers.by_scoring)
    with pytest.raises(InputError, match="int8 digits on cuda gives other integers"):
        known_answers.check("cuda")
