"""A measurement as text for people."""

from bitlaw.analysis.prior_and_context import HEADLINE
from bitlaw.report.tables import STEPS_OF_AUDIT

WIDTH = 44  # characters of the first column
SPLIT = {
    "top_bits": "the top bit of every byte",
    "tokeniser": "tokeniser: log2 of the vocabulary a token",
    "first_token": "first tokens, against later ones",
    "prior": f"prior: saved before byte {HEADLINE} of a chunk",
    "context": f"context: saved beyond that from byte {HEADLINE} on",
}


def lines(model, found):
    """Lines that show `found` (from `measurement.measure`) under the model called `model`."""
    cut, window = found["cut"], found["window"]
    yield f"{len(found['files'])} files" if len(found["files"]) > 1 else found["files"][0]
    drawn = "" if cut["sampling"] == "head" else f", drawn of {found['counts']['available']:,} by seed {cut['seed']}"
    yield f"{found['chunks']:,} chunks of {cut['chunk_bytes']:,} bytes (cut: {cut['cut']}{drawn}), {_left_out(found)}"
    yield f"{model}: {found['params_total']:,} parameters, {found['precision']} on {found['device']}"
    yield (
        f"windows of {window['tokens']:,} tokens that advance by {window['advance']:,}; each chunk by itself, "
        f"{found['bytes'] / found['tokens']:.2f} bytes a token"
    )
    yield ""
    yield _row("", "ratio", "95 % interval", "bits a byte", "95 % interval")
    for protocol in ("lossless", "published"):
        ratio, bits = found[protocol]["ratio"], found[protocol]["bits_per_byte"]
        yield _row(protocol, _number(ratio["value"]), _span(ratio), _number(bits["value"]), _span(bits))
    dropped = f"; {found['dropped']:,} of {found['chunks']:,} chunks dropped by it" if found["dropped"] else ""
    yield f"published is the protocol of the study reproduced, from which nothing can be decoded{dropped}"
    yield ""
    yield _row("from published to lossless, by step", "ratio")
    for term, value in found["audit"].items():
        if term == "quantisation" and value == 0:  # one pass gives both numbers
            continue
        yield _row(STEPS_OF_AUDIT[f"audit_{term}"], _number(value, "+.4f"))
    yield ""
    split = next(row for row in found["prior_and_context"] if row["K"] == HEADLINE)
    yield _row("of the 8 bits of a byte", "bits", "95 % interval")
    for term, name in SPLIT.items():
        ends = {end: split[f"{term}_{end}"] for end in ("low", "high")} if f"{term}_low" in split else None
        yield _row(name, _number(split[term]), _span(ends) if ends else "")
    yield _row("left for the stream, without its container", _number(split["total"]))
    yield ""
    yield _row("classical compressors on the same chunks", "ratio", "bits a byte", "all chunks at once")
    for chunk, whole in zip(*(_scope(found, scope) for scope in ("chunk", "whole")), strict=True):
        bits = None if chunk["ratio"] is None else 8 * chunk["ratio"]
        yield _row(chunk["compressor"], _number(chunk["ratio"]), _number(bits), _number(whole["ratio"]))
    yield ""
    check = found["decode_check"]
    yield (
        f"{found['tokens']:,} tokens, {found['speed']['tokens_per_second']:,.0f} tokens/s; another process decoded "
        f"{check['chunks']} chunks to the same bytes"
    )


def _left_out(found):
    counts = found["counts"]
    if "pixels_outside_patches" in counts:
        return f"{counts['pixels_outside_patches']:,} pixels outside the patches"
    return f"{counts['bytes_left_out_at_end']:,} bytes left out at the end"


def _scope(found, scope):
    return [row for row in found["classical"] if row["scope"] == scope]


def _span(ends):
    return "none" if ends["low"] is None else f"{ends['low']:.4f} to {ends['high']:.4f}"


def _number(value, form=".4f"):
    text = "none" if value is None else format(value, form)
    return text if text.strip("+-0.") else text.replace("-", "+" if "+" in form else "")


def _row(name, *values):
    widths = (8, 18, 18, 18)
    return (f"{name:{WIDTH}}" + "  ".join(f"{v:>{w}}" for v, w in zip(values, widths, strict=False))).rstrip()
