"""Code lengths to compression ratios under each protocol, and the audit of the steps between them.

All chunks of a cell have the same number of bytes, so a mean of ratios is a ratio of totals.
"""

import math

import numpy as np

PUBLISHED_TOKENS = 1024  # the study cuts each chunk there and still divides by all its bytes
PUBLISHED_FLOOR = 1e-10  # probability below which its code length stops growing
PUBLISHED_RANGE = (0.01, 10.0)  # ratios outside are dropped there
POSITION_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # byte offsets; the last bin is open

# the audit's terms in order; published + all terms = lossless
TERMS = (
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


def chunk_row(
    number, size, token_bytes, scores, record_bits, container_bits, plane_bits, precision, study_lengths=None
):
    """The row of one chunk, a dict of numbers (all in bits unless named otherwise).

    size is in bytes; token_bytes int `[tokens]`; record_bits is the length of the coded string; container_bits what
    the container spends on this chunk, its share of the fixed part included; plane_bits the ideal cost of the flag
    and top bits. study_lengths are -log2 p of (at least) the first 1024 tokens as the study computed them, where
    that is not the pass of `scores`.
    """
    lengths = scores.lengths
    ideal = np.log2(scores.totals.astype(np.float64)) - np.log2(scores.frequencies.astype(np.float64))
    causal = published_bits(lengths, precision)
    published = causal if study_lengths is None else published_bits(study_lengths, precision)
    ratio = published / (8 * size)
    offsets = np.cumsum(token_bytes) - token_bytes
    bins = np.searchsorted(POSITION_EDGES, offsets[1:], side="right") - 1
    count = len(POSITION_EDGES)
    return {
        "chunk": number,
        "bytes": size,
        "tokens": len(lengths),
        "kept": bool(PUBLISHED_RANGE[0] < ratio < PUBLISHED_RANGE[1]),
        "bits_published": published,
        "bits_published_causal": causal,  # the same rule on the lengths of the pass that is coded
        "bits_to_1024": float(np.sum(lengths[1:PUBLISHED_TOKENS])),
        "bits_past_1024": float(np.sum(lengths[PUBLISHED_TOKENS:])),
        "bits_first_token": float(lengths[0]),
        "bits_frequencies": float(np.sum((ideal - lengths)[1:])),
        "bits_termination": record_bits - float(np.sum(ideal)) - plane_bits,
        "bits_container": container_bits,
        "bits_top_bits": plane_bits,
        "bits_stream": record_bits + container_bits,
        # tokens after the first, by the byte at which they start: what position buys
        "bits_by_position": np.bincount(bins, weights=ideal[1:], minlength=count).tolist(),
        "bytes_by_position": np.bincount(bins, weights=token_bytes[1:], minlength=count).astype(int).tolist(),
        "tokens_by_position": np.bincount(bins, minlength=count).tolist(),
        # what the model finds surprising, for one chunk to look at
        "bits_by_token": ideal.astype(np.float32) if number == 0 else None,
    }


def cell(rows):
    """Ratios and audit of a cell from its chunk rows: a dict with cr_published, cr_lossless, chunks, dropped and TERMS.

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
    full = ("bits_to_1024", "bits_past_1024", "bits_first_token")
    terms = {
        "audit_quantisation": causal - published,  # 0 unless int8: else one pass gives both numbers
        "audit_probabilities": mean("bits_to_1024", kept) - causal,
        "audit_past_1024": mean("bits_past_1024", kept),
        "audit_first_token": mean("bits_first_token", kept),
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
