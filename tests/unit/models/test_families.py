"""Every architecture that transformers loads as a causal language model codes and decodes, or is refused in a line.

docs/models.md says which, and is held to it here.
"""

import pytest

import family_table
import tiny_families
from page_tables import documented
from repository import ROOT

OFTEN_USED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2", "bloom", "falcon", "mamba")
OFTEN_USED += ("recurrent_gemma", "rwkv", "opt", "bert")
DOCUMENTED = documented(ROOT / "docs/models.md")


def check(family):
    how, line = family_table.row(family)
    assert how == DOCUMENTED[family]
    assert line is None or ("\n" not in line and ": " in line)


@pytest.mark.parametrize("family", OFTEN_USED)
def test_families_often_used(family):
    check(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in tiny_families.FAMILIES if name not in OFTEN_USED])
def test_every_other_family(family):
    if DOCUMENTED[family] == family_table.NOT_TRIED:
        pytest.skip("its settings are not made tiny here")
    check(family)


def test_the_page_names_every_family():
    assert set(DOCUMENTED) == set(tiny_families.FAMILIES)
