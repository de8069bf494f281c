"""A measurement of files without a study: one cell in a temporary folder, and what the analysis says of it."""

import json
from pathlib import Path

from bitlaw.commands import inputs

VERIFIED = 2  # chunks that another process decodes and compares
TOKENS_AT_A_TIME = 4096  # of a floating-point pass; bounds memory, does not change a number


def measure(arguments, model, tokenizer, precision, folder):
    """What is measured of arguments.file under the checkpoint folder `model`: a dict, all of it plain JSON.

    arguments: as `commands.measure` has them. Everything that waits on the way lies in `folder`. Raises what
    `shards.cut` and `cell.compress` do.
    """
    from bitlaw.compression import cell
    from bitlaw.data import seven_bit, shards, tokens

    folder, chunk_bytes = Path(folder), arguments.chunk_bytes
    paths = inputs.collect(arguments.file, folder)
    settings = inputs.settings(arguments.cut, paths, arguments.chunks, arguments.convert)
    available = _available(paths, settings, chunk_bytes)
    manifest = shards.cut(folder, {"chunks": available} | settings, chunk_bytes, folder / "shards")
    opened, spelling, sha256 = tokens.open_tokenizer(tokenizer)
    texts = [seven_bit.to_ascii(chunk) for chunk in shards.read(folder / "shards")]
    ids, repaired = tokens.encode_counted(opened, spelling, texts)
    tokens.write(folder / "tokens.npz", ids, spelling, sha256, repaired)
    of_cell = cell.Inputs(
        folder=model, tokenizer=tokenizer, shard_folder=folder / "shards", token_file=folder / "tokens.npz",
        precision=precision, published=precision, device=arguments.device, verify=VERIFIED,
        tokens_at_a_time=TOKENS_AT_A_TIME, threads=arguments.threads,
    )  # fmt: skip
    labels = {"modality": arguments.cut, "model": str(arguments.model), "step": 0}  # the analysis asks for them
    about = cell.compress(of_cell, labels, folder / "cell")
    named = ["-" if path.parent == folder else str(path) for path in paths]  # what came from a pipe lies here
    return _described(about, manifest, named, folder)


def _available(paths, settings, chunk_bytes):
    """How many chunks the files give; InputError where there is none."""
    from bitlaw import InputError
    from bitlaw.data import chunking

    available = chunking.open_chunks({str(path): path for path in sorted(paths)}, settings, chunk_bytes).available
    if not available:
        what = "image has a patch of 32 x 64 pixels" if settings["cut"] == "image" else f"chunk of {chunk_bytes} bytes"
        raise InputError(f"{paths[0]}: gives no whole chunk: no {what}; a smaller --chunk-bytes may help")
    return available


def _described(about, manifest, paths, folder):
    from bitlaw.analysis import cell_table, classical, prior_and_context
    from bitlaw.data import shards

    cell = folder / "cell.json"
    chunks = [bytes(row) for row in shards.read(folder / "shards")]
    context = json.loads(prior_and_context.table([cell]).to_json(orient="records", double_precision=15))
    if len(chunks) == 1:  # whose draws are all the same: no interval
        context = [{name: None if name.endswith(("_low", "_high")) else row[name] for name in row} for row in context]
    return {
        "files": paths,
        "cut": manifest["sampling"] | {"chunk_bytes": manifest["chunk_bytes"]},
        "counts": manifest["counts"],
        "chunks": about["chunks"],
        "bytes": about["chunks"] * manifest["chunk_bytes"],
        "tokens": about["tokens"],
        "window": about["window"],
        **{protocol: _ratio(about, protocol, cell) for protocol in ("lossless", "published")},
        "dropped": about["dropped"],
        "audit": {name.removeprefix("audit_"): _plain(about[name]) for name in about if name.startswith("audit_")},
        "prior_and_context": [
            {k: v for k, v in row.items() if k not in (*cell_table.LABELS, "pass")} for row in context
        ],
        "classical": classical.measure(manifest["sampling"]["cut"], chunks, manifest["sampling"]),
        "speed": {name: about[name] for name in ("tokens_per_second", "bytes_per_second", "seconds_by_part")},
        **{name: about[name] for name in ABOUT},
    }


ABOUT = (
    *("params_total", "params_nonembedding", "weights_sha256", "tokenizer_sha256", "origin"),
    *("precision", "mode", "compute", "device", "machine", "versions", "stream_bits"),
    *("escaped_symbols", "repaired_bytes", "peak_memory_bytes", "decode_check"),
)


def _ratio(about, protocol, cell):
    """{value, low, high, standard_error} of the ratio, and of bits per byte.

    low, high: 95 % over files where there are four or more, else over chunks, drawn in blocks of neighbours; the
    standard error takes the one or the other as independent.
    None where there is no number: of all of them if the published study drops all chunks, of intervals of one chunk.
    """
    from bitlaw.analysis import block_bootstrap, cell_table

    path = cell.with_suffix(".parquet")
    sample, files = cell_table.chunk_ratios([path], protocol)[0], cell_table.chunk_files(path)
    kept = sample == sample  # those not dropped
    low, high = map(float, block_bootstrap.mean_interval(sample, files)) if kept.sum() > 1 else (None, None)
    error = block_bootstrap.standard_error(sample[kept], files[kept])
    values = {"value": about[f"cr_{protocol}"], "low": low, "high": high, "standard_error": error}
    values = {name: _plain(value) for name, value in values.items()}
    return {"ratio": values, "bits_per_byte": {name: value and 8 * value for name, value in values.items()}}


def _plain(value):
    """The number, or None for NaN, which JSON does not have."""
    return None if value is None or value != value else float(value)
