"""Exact arithmetic keeps weights in 16 bits and converts a layer at a time: Pythia-1.4B needs less than 6 GiB."""

import exact
import pytest

GIB = 1 << 30
LENGTH = 64


def most(name):
    """Bytes that a process may take for the shape `name`: libraries and a pass of LENGTH tokens take the first term."""
    kind, width, layers, heads, kv_heads, mlp, vocabulary, _ = exact.SHAPES[name]
    assert kind is exact.NEOX and heads == kv_heads
    layer, head = 4 * width * width + 2 * width * mlp, vocabulary * width
    return GIB // 2 + 2 * (layers * layer + 2 * head) + 8 * (layer + head)


def test_what_pythia_1_4b_may_take_is_less_than_six_gib():
    assert most("pythia-1.4b") < 6 * GIB


@pytest.mark.slow
def test_a_pass_takes_no_more_than_that():
    name = "pythia-410m"
    found = exact.memory(name, LENGTH)
    print({step: f"{size / GIB:.2f} GiB" for step, size in found.items()}, f"at most {most(name) / GIB:.2f} GiB")
    assert list(found) == ["libraries", "weights", "one pass", "float64 products"]
    _, width, layers, _, _, mlp, vocabulary, _ = exact.SHAPES[name]
    held = 2 * (layers * (4 * width * width + 2 * width * mlp) + 2 * vocabulary * width)
    assert most(name) < held + 8 * layers * 12 * width * width  # which converting all layers at once would take
    assert held < found["weights"] - found["libraries"] < found["float64 products"] < most(name)
