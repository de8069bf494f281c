"""Code lengths to compression ratios under each protocol, and the audit of the steps between them.

All chunks of a cell have the same number of bytes, so a mean of ratios is a ratio of totals.
"""

import math

import numpy as np

PUBLISHED_TOKENS = 1024  # the study cuts each chunk there and still divides by all its bytes
PUBLISHED_FLOOR = 1e-10  # probability below which its code length stops growing
PUBLISHED_RANGE = (0.01, 10.0)  # ratios outside are dropped there
POSITION_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # byte offsets; the last bin is open

# steps of the audit in order; published + all of them = lossless
AUDIT_TERMS = (
    "audit_quantisation",
    "audit_probabilities",
    "audit_past_1024",
    "audit_first_token",
    "audit_dropped",
    "audit_frequencies",
    "audit_termination",
    "audit_container",
    "audit_top_bits",
)


def _rounded(p, precision):
    """Probabilities `p` (float64) as the model's compute dtype holds them: in int8 the study's, fp16."""
    if precision in ("fp16", "int8"):
        return p.astype(np.float16).astype(np.float64)
    if precision == "bf16":  # round to nearest even on the upper half of a float32
        bits = p.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    return p.astype(np.float32).astype(np.float64)


def published_bits(lengths, precision):
    """Bits that the study counts for a chunk with `lengths` (-log2 p, float64 `[tokens]`, first token included)."""
    p = _rounded(np.exp2(-lengths[1:PUBLISHED_TOKENS]), precision)
    return float(np.sum(-np.log2(np.maximum(p, PUBLISHED_FLOOR))))


def ideal_bits(scores):
    """What a coder without loss writes for each token's integer interval: log2(total / frequency), float64 `[tokens]`.

    scores: a `scoring.Scores`.
    """
    return np.log2(scores.totals.astype(np.float64)) - np.log2(scores.frequencies.astype(np.float64))


def chunk_row(number, size, *costs):
    """The row of chunk `number` of `size` bytes in a table of chunks: a dict of the two and of every dict of `costs`.

    A cell's rows have those of `position_costs`, `published_costs`, `audit_costs` and `stream_costs`; those of a pass
    that is scored and not coded have the first alone. All numbers are bits unless named otherwise.
    """
    row = {"chunk": number, "bytes": size}
    for cost in costs:
        row |= cost
    return row


def position_costs(scores, token_bytes):
    """What the tokens of a chunk cost by where they start, in ideal bits; the first token by itself, uniform over the
    vocabulary or predicted from a prefix.

    `..._by_position` are lists over the bins of POSITION_EDGES: bits, bytes and number of the tokens from the second
    on, each token counted in the bin of its first byte. token_bytes: int `[tokens]`, how many bytes each one spells.
    """
    offsets = np.cumsum(token_bytes) - token_bytes
    bins = np.searchsorted(POSITION_EDGES, offsets[1:], side="right") - 1
    count = len(POSITION_EDGES)
    return {
        "tokens": len(scores.lengths),
        "bits_first_token": float(ideal_bits(scores)[0]),
        "bits_by_position": np.bincount(bins, weights=ideal_bits(scores)[1:], minlength=count).tolist(),
        "bytes_by_position": np.bincount(bins, weights=token_bytes[1:], minlength=count).astype(int).tolist(),
        "tokens_by_position": np.bincount(bins, minlength=count).tolist(),
    }


def audit_costs(scores, plain=None):
    """Bits between the published count and the coder's: sums of -log2 p of the tokens from the second to the 1024th
    and past it; what a prefix changes of these (less than nothing where it helps); and what the integer frequencies of
    the tokens from the second on cost more than -log2 p.

    plain: -log2 p of the tokens without the prefix, float64 `[tokens]`; None where `scores` are without one.
    """
    lengths = scores.lengths
    plain = lengths if plain is None else plain
    return {
        "bits_to_1024": float(np.sum(plain[1:PUBLISHED_TOKENS])),
        "bits_past_1024": float(np.sum(plain[PUBLISHED_TOKENS:])),
        "bits_prefix": float(np.sum((lengths - plain)[1:])),
        "bits_frequencies": float(np.sum((ideal_bits(scores) - lengths)[1:])),
    }


def published_costs(size, precision, lengths, study_lengths=None):
    """What the published study counts of a chunk of `size` bytes, and whether it keeps the chunk.

    lengths: -log2 p of the tokens, float64 `[tokens]`, as coded but without a prefix. study_lengths: those of at least
    the first 1024 tokens as the study computed them, where that is another pass; else both numbers are the same.
    """
    causal = published_bits(lengths, precision)
    published = causal if study_lengths is None else published_bits(study_lengths, precision)
    return {
        "kept": bool(PUBLISHED_RANGE[0] < published / (8 * size) < PUBLISHED_RANGE[1]),
        "bits_published": published,
        "bits_published_causal": causal,  # the same rule on the arithmetic that is coded
    }


def stream_costs(scores, top_bits, coded, container):
    """What the stream spends on a chunk, in bits.

    top_bits: the ideal cost of the flag and the plane of top bits (`top_bits.ideal_bits`); coded: the length of the
    coded string; container: all else of the chunk's record and its share of the stream's header.
    """
    return {
        "bits_termination": coded - float(np.sum(ideal_bits(scores))) - top_bits,
        "bits_container": container,
        "bits_top_bits": top_bits,
        "bits_stream": coded + container,
    }


def cell(rows):
    """Ratios and audit of a cell from the rows of its chunks (see `chunk_row`).

    Returns a dict: chunks, dropped (how many the published study would not keep), cr_published, cr_lossless and
    AUDIT_TERMS. Raises ValueError for chunks of different sizes.
    cr_published is the mean over kept chunks; it and the terms taken over kept chunks are NaN when none is kept.
    """
    raw = 8 * rows[0]["bytes"]
    if any(8 * row["bytes"] != raw for row in rows):
        raise ValueError("chunks of different sizes have no common ratio")
    kept = np.array([row["kept"] for row in rows])

    def mean(name, over=None):
        values = np.array([row[name] for row in rows]) / raw
        values = values if over is None else values[over]
        return float(np.mean(values)) if len(values) else math.nan

    published, causal = mean("bits_published", kept), mean("bits_published_causal", kept)
    full = ("bits_to_1024", "bits_past_1024", "bits_first_token", "bits_prefix")
    terms = {
        "audit_quantisation": causal - published,  # 0 unless int8: else one pass gives both numbers
        "audit_probabilities": mean("bits_to_1024", kept) - causal,
        "audit_past_1024": mean("bits_past_1024", kept),
        # what it costs, and what a prefix, if there is one, saves of all others
        "audit_first_token": mean("bits_first_token", kept) + mean("bits_prefix", kept),
        "audit_dropped": sum(mean(name) for name in full) - sum(mean(name, kept) for name in full),
        "audit_frequencies": mean("bits_frequencies"),
        "audit_termination": mean("bits_termination"),
        "audit_container": mean("bits_container"),
        "audit_top_bits": mean("bits_top_bits"),
    }
    return {
        "chunks": len(rows),
        "dropped": int(np.sum(~kept)),
        "cr_published": published,
        "cr_lossless": mean("bits_stream"),
        **terms,
    }
