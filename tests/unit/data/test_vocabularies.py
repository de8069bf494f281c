"""Tokenizers with the settings of well-known families: every text comes back, or the vocabulary is refused."""

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import vocabularies_of_families as families
from bitlaw import InputError
from bitlaw.data import escapes, seven_bit, tokens
from page_tables import documented
from repository import ROOT
from tiny_models import PASSAGE

ASCII = "".join(map(chr, range(128)))
CHUNKS = [
    PASSAGE.encode(),
    PASSAGE.replace(" ", "   ").encode(),
    (np.arange(1024) * 37 % 900).astype("<i2").tobytes(),
    np.random.default_rng(0).bytes(1024),
]


@pytest.fixture(scope="module")
def of(tmp_path_factory):
    """`of(family)` gives the path of its tokenizer.json and what `open_tokenizer` gives."""

    @cache
    def make(name):
        path = tmp_path_factory.mktemp(name) / "tokenizer.json"
        (families.FAMILIES | families.REFUSED)[name]().save(str(path))
        return path, tokens.open_tokenizer(path)

    return make


def restored(spelling, ids):
    return escapes.read(escapes.table(spelling), b"".join(spelling[i] for i in ids)).decode()


@pytest.mark.parametrize("name", families.FAMILIES)
def test_all_kinds_of_chunks_come_back(of, name):
    _, (tokenizer, spelling, _) = of(name)
    texts = [seven_bit.to_ascii(chunk) for chunk in CHUNKS]
    ids, anew = tokens.encode_counted(tokenizer, spelling, texts)
    assert [restored(spelling, own) for own in ids] == texts
    assert len(ids[0]) < 0.7 * len(texts[0])  # it is still the family's tokenisation
    if name in families.EXACT:
        assert anew == [0, 0, 0, 0]
    else:
        assert sum(anew) < sum(map(len, texts))


@pytest.mark.parametrize("name", families.FAMILIES)
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(max_codepoint=127), max_size=120) | st.text(" aT\n<mask>x", max_size=40))
@example(text=ASCII)
@example(text="   a  b   <mask>  <s></s><unk> \n  ")
@example(text="")
def test_any_text_comes_back(of, name, text):
    _, (tokenizer, spelling, _) = of(name)
    (ids,), (anew,) = tokens.encode_counted(tokenizer, spelling, [text])
    assert restored(spelling, ids) == text and 0 <= anew <= 2 * len(text)


def test_the_page_says_so():
    said = documented(ROOT / "docs/models.md", "Tokenizers")
    assert set(said) == {*families.FAMILIES, *families.REFUSED}
    assert {name for name, how in said.items() if how == "whole"} == set(families.EXACT)
    assert {name for name, how in said.items() if how.startswith("refused")} == set(families.REFUSED)


def test_what_comes_back_is_not_spelt_out_anew(of):
    """T5's normaliser makes one space of two: the words around stay as they were."""
    _, (tokenizer, spelling, _) = of("t5")
    plain, double = " sister on the bank and of having nothing", " sister on the bank  and of having nothing"
    (one, two), (none, some) = tokens.encode_counted(tokenizer, spelling, [plain, double])
    assert none == 0 and 1 <= some <= 5
    assert len(two) <= len(one) + 3 and len(set(one.tolist()) - set(two.tolist())) <= 1


@pytest.mark.parametrize("name", families.REFUSED)
def test_pieces_that_do_not_spell_spaces_are_refused(of, name):
    with pytest.raises(InputError, match=r"tokenizer\.json: its pieces are parts of words .* choose") as refusal:
        of(name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_token_in_front_is_the_post_processors(of, name):
    path, _ = of(name)
    assert tokens.prefix(path, "auto") == families.FRONT.get(name)
    assert tokens.prefix(path, "none") is None and tokens.prefix(path, 7) == 7


def test_two_tokens_in_front_need_a_choice(of, tmp_path):
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(of("gemma")[0]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> <bos> $A", special_tokens=[("<pad>", 0), ("<bos>", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"puts 2 tokens in front of a text, \[0, 2\]: give the model `bos`"):
        tokens.prefix(tmp_path / "tokenizer.json", "auto")


def test_repaired_bytes_are_kept_with_the_tokens(of, tmp_path):
    _, (tokenizer, spelling, sha256) = of("t5")
    ids, anew = tokens.encode_counted(tokenizer, spelling, [" a  b", " a b"])
    tokens.write(tmp_path / "t.npz", ids, spelling, sha256, anew)
    assert tokens.read_repaired(tmp_path / "t.npz").tolist() == anew and anew[0] > anew[1] == 0
