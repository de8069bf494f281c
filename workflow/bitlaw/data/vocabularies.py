"""What a tokenizer.json says, read for coding: the bytes that each token stands for, and what must not be in the way.

A decoder never runs a tokenizer: it puts the spellings of tokens together. So any ids that spell a text are valid, and
an encoder is free to leave out what a tokenizer adds for the eyes of its model alone.
"""

import json
import re

from bitlaw import InputError

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # byte fallback of sentencepiece vocabularies


def check(description, path):
    """Raise InputError, which names `path`, for a vocabulary whose pieces do not say where spaces are."""
    model = description.get("model") or {}
    marks = [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if model.get("type") == "WordPiece" or marks:
        how = f"by {marks[0]} {model[marks[0]]!r}" if marks else "as WordPiece"
        raise InputError(
            f"{path}: its pieces are parts of words ({how}) and do not spell the spaces between them, so no text comes "
            "back from them; choose a model with a byte-level or sentencepiece vocabulary"
        )


def plain(description):
    """The tokenizer of a tokenizer.json's content without prefix spaces, truncation, padding and special tokens."""
    off = {"truncation": None, "padding": None, "post_processor": None}
    steps = {key: _without_prefix(description.get(key)) for key in ("normalizer", "pre_tokenizer")}
    return description | off | steps


def _without_prefix(step):
    """A normalizer or pre-tokenizer, or a sequence of them, that puts no space in front of the text; None if none.

    Behind a step that takes spaces away the prefix gives them back, a word at a time, and stays (T5).
    """
    match step:
        case {"type": "Sequence"}:
            key = "normalizers" if "normalizers" in step else "pretokenizers"
            first = next((i for i, inner in enumerate(step[key]) if _takes_spaces(inner)), len(step[key]))
            kept = [*map(_without_prefix, step[key][:first]), *step[key][first:]]
            return step | {key: [inner for inner in kept if inner is not None]}
        case {"type": "Prepend"}:
            return None
        case {"type": "Metaspace"}:
            return {k: v for k, v in step.items() if k != "add_prefix_space"} | {"prepend_scheme": "never"}
        case {"type": "ByteLevel", "add_prefix_space": True}:
            return step | {"add_prefix_space": False}
    return step


def _takes_spaces(step):
    splitters = ("WhitespaceSplit", "Whitespace", "BertPreTokenizer", "CharDelimiterSplit")
    return step["type"] in splitters or (step["type"] == "Split" and step.get("behavior") == "Removed")


def spelling(tokenizer, description):
    """Bytes of every token id, from the vocabulary and not from the decoder, which may tidy spaces away; None of gaps.

    Texts are ASCII: an added token whose content is not can only come from the vocabulary, spelt as that spells.
    """
    added = {token["id"]: token["content"] for token in description.get("added_tokens", [])}
    parts = json.dumps([description.get(key) for key in ("normalizer", "pre_tokenizer", "decoder", "post_processor")])
    byte_level = byte_symbols() if '"ByteLevel"' in parts else None
    found = []
    for i in range(1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)):  # ids may have gaps
        token = tokenizer.id_to_token(i)
        if i in added and added[i].isascii():
            found.append(added[i].encode())
        elif token is None:
            found.append(None)
        elif byte_level is not None:
            known = all(c in byte_level for c in token)
            found.append(bytes(byte_level[c] for c in token) if known else token.encode() if i in added else None)
        elif fallback := BYTE.fullmatch(token):
            found.append(bytes([int(fallback[1], 16)]))
        else:
            found.append(token.replace("▁", " ").encode())
    return found


def byte_symbols():
    """GPT-2's alphabet (Radford et al. 2019): the character that a byte-level tokenizer writes for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (b for b in range(256) if b not in plain)
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def in_front(tokenizer):
    """Ids that a tokenizer's post-processor puts in front of a text, a list."""
    text = "a"
    alone = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.encode(text).ids
    # what follows the text (T5's end) is no prefix
    return next((whole[:i] for i in range(len(whole)) if alone and whole[i : i + len(alone)] == alone), [])
