"""Spans of a text that a tokenizer does not give back, spelt out by the longest tokens that match.

Normalisers lower-case, compose, strip; unknown symbols become one token. What comes back stays as it was tokenised.
"""

from bitlaw.data.vocabularies import BYTE


def words(tokenizer, spelling):
    """{bytes: the id that stands for them}; ordinary tokens go before byte fallbacks, and these before added tokens."""
    added = tokenizer.get_added_tokens_decoder()

    def rank(i):
        return i in added, bool(BYTE.fullmatch(tokenizer.id_to_token(i) or "")), i

    ranked = sorted((i for i, data in enumerate(spelling) if data), key=rank, reverse=True)
    return {spelling[i]: i for i in ranked}


def repaired(text, encoding, spelling, known):
    """(token ids that spell `text`, how many of its bytes had to be spelt out anew).

    text: bytes of ASCII; encoding: what a tokenizer made of it, with offsets; known: `words` of that tokenizer. Each of
    its symbols is a token, which `escapes` sees to.
    """
    ids, anew, at = [], 0, 0
    for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
        own = spelling[token]
        places = (begin, end - len(own)) if own else ()  # the space before a token may be outside its offsets
        place = next((p for p in places if p >= at and text.startswith(own, p)), None)
        if place is None:
            continue
        ids += _longest(text[at:place], known)
        ids.append(token)
        anew += place - at
        at = place + len(own)
    return ids + _longest(text[at:], known), anew + len(text) - at


def _longest(span, known):
    ids, at, most = [], 0, max(map(len, known), default=0) if span else 0
    while at < len(span):
        sizes = range(min(most, len(span) - at), 0, -1)
        size = next((n for n in sizes if span[at : at + n] in known), 1)
        ids.append(known[span[at : at + size]])
        at += size
    return ids
