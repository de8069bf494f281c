"""Tokens and the bytes they stand for: all of ASCII comes back or the tokenizer is refused."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from bitlaw import InputError
from bitlaw.data import tokens, vocabularies

ASCII = "".join(map(chr, range(128)))
ascii_text = st.text(st.characters(max_codepoint=127), max_size=200)


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    """`save(tokenizer, **changes to its description)` gives a tokenizer.json."""

    def save(tokenizer=tokenizer, **changes):
        path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
        path.write_text(json.dumps(json.loads(tokenizer.to_str()) | changes))
        return path

    return save


@pytest.fixture(scope="module")
def opened(saved):
    return tokens.open_tokenizer(saved())


@pytest.fixture(scope="module")
def with_fallback():
    """A vocabulary in the manner of sentencepiece: a mark for spaces, <0x..> for what it lacks."""
    words = ["<unk>", "▁", "the", "▁the", *(f"<0x{b:02X}>" for b in range(256)), *"abcdefghijkl"]
    tokenizer = Tokenizer(
        models.BPE(dict(zip(words, range(len(words)), strict=True)), [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


@settings(max_examples=100, deadline=None)
@given(text=ascii_text)
@example(text=ASCII)
@example(text="")
def test_every_ascii_text_comes_back(opened, text):
    tokenizer, spelling, _ = opened
    (ids,) = tokens.encode(tokenizer, spelling, [text])
    assert b"".join(spelling[i] for i in ids).decode() == text
    assert ids.dtype == np.int32 and tokens.lengths(spelling, ids).sum() == len(text)


@settings(max_examples=60, deadline=None)
@given(text=ascii_text)
@example(text=ASCII)
def test_every_ascii_text_comes_back_through_byte_fallback(with_fallback, text):
    spelling = vocabularies.spelling(with_fallback, json.loads(with_fallback.to_str()))
    (ids,) = tokens.encode(with_fallback, spelling, [text])
    assert b"".join(spelling[i] for i in ids).decode() == text == with_fallback.decode(ids.tolist())


def test_the_spelling_is_what_the_tokenizer_itself_decodes(opened):
    tokenizer, spelling, _ = opened
    assert len(spelling) == tokenizer.get_vocab_size() > 128
    for number, data in enumerate(spelling):
        assert tokenizer.decode([number], skip_special_tokens=False) == data.decode()
    assert sorted(data for data in spelling if len(data) == 1) == [bytes([b]) for b in range(128)]


def test_bytes_above_ascii_are_spelt_too():
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(letters))}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    spelling = vocabularies.spelling(tokenizer, json.loads(tokenizer.to_str()))
    assert sorted(spelling) == [bytes([b]) for b in range(256)]
    for text in ("é", "€", "𝄞", "\u00ad\u00a0"):
        assert b"".join(spelling[i] for i in tokenizer.encode(text).ids) == text.encode()


@pytest.mark.parametrize("special", [True, False])
def test_an_added_token_in_the_text_comes_back(saved, special):
    number = 300
    token = {"id": number, "content": "<|endoftext|>", "special": special}
    token |= {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer, spelling, _ = tokens.open_tokenizer(saved(added_tokens=[token]))
    text = "a <|endoftext|>\n<|endoftext|><|endof"
    (ids,) = tokens.encode(tokenizer, spelling, [text])
    assert b"".join(spelling[i] for i in ids).decode() == text and np.sum(ids == number) == 2


def test_ids_may_have_gaps(tokenizer, saved):
    description = json.loads(tokenizer.to_str())
    vocabulary = {token: 3 * number for token, number in description["model"]["vocab"].items()}
    opened, spelling, _ = tokens.open_tokenizer(saved(model=description["model"] | {"vocab": vocabulary}))
    (ids,) = tokens.encode(opened, spelling, [ASCII])
    assert b"".join(spelling[i] for i in ids).decode() == ASCII and spelling[1] is None


def spelt(spelling, ids):
    return b"".join(spelling[i] for i in ids).decode()


def test_only_what_does_not_come_back_is_spelt_out_anew(saved):
    path = saved(normalizer={"type": "Replace", "pattern": {"String": "q"}, "content": ""})
    opened, spelling, _ = tokens.open_tokenizer(path)
    texts = ["abc", "the quick and the quiet", ""]
    ids, anew = tokens.encode_counted(opened, spelling, texts)
    assert [spelt(spelling, own) for own in ids] == texts
    assert anew[0] == anew[2] == 0 and 2 <= anew[1] <= 12
    kept = opened.encode("the quick and the quiet").ids
    assert len(set(kept) & set(ids[1].tolist())) >= len(set(kept)) - 2


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "WhitespaceSplit"},
                    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                ],
            }
        },
    ],
)
def test_what_a_tokenizer_changes_is_repaired_and_counted(saved, changes):
    opened, spelling, _ = tokens.open_tokenizer(saved(**changes))
    (ids,), (anew,) = tokens.encode_counted(opened, spelling, [text := " The quick\n brown  Fox "])
    assert spelt(spelling, ids) == text and 0 < anew < len(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Prepend", "prepend": "_"}},
        {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {
            "padding": {
                "strategy": {"Fixed": 99},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "!",
            }
        },
    ],
)
def test_what_a_tokenizer_adds_or_cuts_off_is_switched_off(saved, changes, tokenizer):
    opened, spelling, _ = tokens.open_tokenizer(saved(**changes))
    (ids,), (anew,) = tokens.encode_counted(opened, spelling, [text := "The quick\n brown  Fox "])
    assert anew == 0 and ids.tolist() == tokenizer.encode(text).ids and spelt(spelling, ids) == text


def test_what_is_no_tokenizer_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match=r"tokenizer\.json: no tokenizer\.json there"):
        tokens.open_tokenizer(path)
    for content in (b"", b"{}", b"\xff\xfe", b'{"model": 1}'):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a tokenizer"):
            tokens.open_tokenizer(path)


def test_the_hash_is_of_the_file(saved):
    path = saved()
    assert tokens.open_tokenizer(path)[2] == hashlib.sha256(path.read_bytes()).hexdigest()


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(ascii_text, max_size=5))
def test_saved_tokens_come_back(opened, tmp_path_factory, texts):
    tokenizer, spelling, sha256 = opened
    ids = tokens.encode(tokenizer, spelling, texts)
    path = tmp_path_factory.mktemp("tokens") / "tokens.npz"
    tokens.write(path, ids, spelling, sha256)
    found, sizes, tag = tokens.read(path)
    assert [i.tolist() for i in found] == [i.tolist() for i in ids] and tag == sha256
    assert [s.sum() for s in sizes] == [len(text) for text in texts]
    assert all(i.dtype == s.dtype == np.int32 and len(i) == len(s) for i, s in zip(found, sizes, strict=True))
