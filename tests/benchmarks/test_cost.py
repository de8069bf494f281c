"""What the study costs: the page says what the script computes, and the script counts as Pythia's makers do."""

import subprocess
import sys

import cost
import pytest

from repository import ROOT

NON_EMBEDDING = {  # as the model cards print them
    "70m": 18_915_328,
    "160m": 85_056_000,
    "410m": 302_311_424,
    "1b": 805_736_448,
    "1.4b": 1_208_602_624,
    "2.8b": 2_517_652_480,
    "6.9b": 6_444_163_072,
    "12b": 11_327_027_200,
}


def test_the_page_shows_the_tables_that_the_script_prints():
    ran = subprocess.run([sys.executable, "benchmarks/cost.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    tables = ran.stdout.strip().split("\n\n")
    assert len(tables) == 4
    for table in tables:
        assert table in (ROOT / "docs/cost.md").read_text()


@pytest.mark.parametrize("name", NON_EMBEDDING)
def test_parameters_are_those_of_the_model_cards(name):
    assert cost.parameters(cost.PYTHIA[name])[1] == NON_EMBEDDING[name]


def test_operations_are_two_for_each_weight_that_multiplies_a_token_and_attention_to_half_of_the_chunk():
    shape = cost.Shape(hidden=64, layers=4, vocabulary=1024)
    matrices = 4 * (3 + 1 + 4 + 4) * 64 * 64
    seen = sum(range(1, 11))  # positions that ten tokens look at
    blocks, rest = cost.flops(shape, 10)
    assert blocks == 2 * 10 * matrices
    assert rest == 2 * 10 * 1024 * 64 + 4 * 2 * 2 * 64 * seen
