"""Tokenizers trained here with the settings that well-known families of models have; `FAMILIES` makes each."""

import json

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tiny_models import PASSAGE

BYTES = [f"<0x{b:02X}>" for b in range(256)]
TEXT = [PASSAGE] * 3 + [PASSAGE.replace(" ", "  "), "def f(x):\n    return {x: [1, 2]}\n\n        # ~`^|\\ \t"] * 3


def _template(token, number):
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, number)])


def _bpe(size=600, specials=("<unk>", "<s>", "</s>"), **settings):
    """Sentencepiece's BPE with byte fallback, as Llama-2, Mistral and Gemma have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True, **settings))
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*specials, *BYTES], show_progress=False)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.pre_tokenizer = None
    # bytes are no words of a text: only fallback makes them
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [t for t in description["added_tokens"] if t["content"] not in BYTES]
    return Tokenizer.from_str(json.dumps(description))


def llama2():
    tokenizer = _bpe()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = _template("<s>", 1)
    return tokenizer


def mistral():
    tokenizer = _bpe()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    tokenizer.post_processor = _template("<s>", 1)
    return tokenizer


def gemma():
    """Runs of spaces are words of the vocabulary and added tokens as well."""
    tokenizer = _bpe(specials=("<pad>", "<eos>", "<bos>", "<unk>"))
    tokenizer.add_tokens([AddedToken("▁" * n, normalized=False) for n in range(2, 8)])
    description = json.loads(tokenizer.to_str())
    model = description["model"]
    for n in range(2, 8):
        token = next(t for t in description["added_tokens"] if t["content"] == "▁" * n)
        model["vocab"]["▁" * n] = token["id"]
        if ["▁", "▁" * (n - 1)] not in model["merges"]:
            model["merges"].append(["▁", "▁" * (n - 1)])
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = _template("<bos>", 2)
    return tokenizer


def t5():
    """Unigram without byte fallback; spaces in a row become one; an end and no beginning."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=350,
        initial_alphabet=[c for c in map(chr, range(33, 127)) if c not in "{}~^`\\<"],
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([PASSAGE], trainer)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def albert():
    """T5's, lower-cased, with quotation marks rewritten."""
    tokenizer = t5()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.Lowercase()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> $A </s>", special_tokens=[("<pad>", 0), ("</s>", 1)]
    )
    return tokenizer


def _byte_level(prefix_space):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def gpt2():
    return _byte_level(False)


def roberta():
    tokenizer = _byte_level(True)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    return tokenizer


def llama3():
    tokenizer = _byte_level(False)
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), _template("<|endoftext|>", 0)]
    )
    return tokenizer


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def openai_gpt():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


FAMILIES = {f.__name__: f for f in (gpt2, llama3, roberta, llama2, mistral, gemma, t5, albert)}
REFUSED = {f.__name__: f for f in (bert, openai_gpt)}
# the token that a model of the family sees first, where its tokenizer puts one there
FRONT = {"llama3": 0, "roberta": 0, "llama2": 1, "mistral": 1, "gemma": 2, "albert": 0}
EXACT = ("gpt2", "llama3", "llama2", "mistral", "gemma")  # of any ASCII text nothing needs to be repaired
