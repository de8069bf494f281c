"""The tokenizer in the metadata of a GGUF file, as the tokenizers library has it."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bitlaw import InputError

UNKNOWN, CONTROL, USER, BYTE = 2, 3, 4, 6  # of tokenizer.ggml.token_type
# how a text is split before its bytes are merged, by the name that llama.cpp has for it
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPLITS = {"llama-bpe": LLAMA3, "qwen2": LLAMA3.replace("{1,3}", ""), "smollm": None, "gpt-2": None}
BEGINS = ("llama-bpe",)  # a beginning-of-text token stands in front unless the file says otherwise


def build(meta, path):
    """The Tokenizer that the metadata `meta` of the GGUF file `path` describe; InputError where it is not known."""
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    if kind == "llama":
        tokenizer, begins = _sentencepiece(meta, path), True
    elif kind == "gpt2" and pre in SPLITS:
        tokenizer, begins = _byte_level(meta, path), pre in BEGINS
    else:
        raise InputError(
            f"{path}: tokenizer {kind!r} with pre-tokenizer {pre!r}; known are 'llama', and 'gpt2' with "
            f"{', '.join(SPLITS)}"
        )
    words, kinds = (_value(meta, key, path) for key in ("tokens", "token_type"))
    whole = [w for w, k in zip(words, kinds, strict=True) if k in (CONTROL, USER)]  # matched in the text, never merged
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in whole])
    if meta.get("tokenizer.ggml.add_bos_token", begins):
        number = _value(meta, "bos_token_id", path)
        if not 0 <= number < len(words):
            raise InputError(f"{path}: bos_token_id {number}, but the file has {len(words)} tokens; give another file")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[words[number], "$A"], special_tokens=[(words[number], number)]
        )
    return tokenizer


def value(meta, key, path):
    """What the metadata `meta` of the GGUF file `path` hold of `key`; InputError where they lack it."""
    if key not in meta:
        raise InputError(f"{path}: its metadata lack {key!r}; give another GGUF file of the model")
    return meta[key]


def _value(meta, key, path):
    return value(meta, f"tokenizer.ggml.{key}", path)


def _byte_level(meta, path):
    """GPT-2's kind: merges of a byte's symbols."""
    words, merges = (_value(meta, key, path) for key in ("tokens", "merges"))
    pre = meta["tokenizer.ggml.pre"]
    vocabulary = {word: number for number, word in enumerate(words)}
    pairs = [tuple(pair.split(" ")) for pair in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=pre == "llama-bpe"))
    if pre == "smollm":
        first = [pre_tokenizers.Digits(individual_digits=True)]
    else:
        first = [pre_tokenizers.Split(Regex(SPLITS[pre]), "isolated")] if SPLITS[pre] else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=SPLITS[pre] is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, last])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(meta, path):
    """Llama-2's kind: two neighbours are merged whose piece together has the highest score; bytes for the rest."""
    words, scores, kinds = (_value(meta, key, path) for key in ("tokens", "scores", "token_type"))
    vocabulary = {word: number for number, word in enumerate(words)}
    unknown = next((word for word, kind in zip(words, kinds, strict=True) if kind == UNKNOWN), None)
    merges = []
    for word, score, kind in zip(words, scores, kinds, strict=True):
        if kind in (UNKNOWN, CONTROL, USER, BYTE):
            continue
        for i in range(1, len(word)):
            if word[:i] in vocabulary and word[i:] in vocabulary:
                merges.append((-score, vocabulary[word[:i]], vocabulary[word[i:]], word[:i], word[i:]))
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, unk_token=unknown, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer
