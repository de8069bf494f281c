"""The command line: compress and decompress files with a language model; fit a law to a table, predict from it."""

import argparse
import logging
import os
import sys
from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.atomic import replacing

CHUNK = 2048


def _arguments():
    parser = argparse.ArgumentParser(prog="bitlaw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("compress", "write FILE.blaw"), ("decompress", "restore the file that was compressed")):
        command = commands.add_parser(name, help=text)
        command.add_argument("file", type=Path)
        command.add_argument("--model", type=Path, required=True, help="folder with config.json, *.safetensors")
        command.add_argument("--tokenizer", type=Path, help="tokenizer.json (default: the one in the model's folder)")
        command.add_argument("--output", type=Path, help="where to write (default: FILE with or without .blaw)")
        command.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads")
        if name == "compress":
            command.add_argument("--precision", default="fp32", help="fp32 (default), bf16, fp16 or int8")
    command = commands.add_parser("fit", help="fit a law to any table with two positive variables")
    command.add_argument("file", type=Path, metavar="TABLE", help="CSV file with a header")
    command.add_argument("--size", default="params_total", help="column of the first variable, P (%(default)s)")
    command.add_argument("--steps", default="step", help="column of the second variable, S (%(default)s)")
    command.add_argument("--response", default="cr_lossless", help="column of the response (%(default)s)")
    command.add_argument("--where", metavar="COLUMN=VALUE", help="take only rows where COLUMN holds VALUE")
    command.add_argument("--form", default="additive", help="additive, additive0, coupled, coupled0, multiplicative")
    command.add_argument("--loss", default="ls", help="ls (least squares, the default), huber or l1")
    command.add_argument("--delta", type=float, default=1e-3, help="where huber turns linear (%(default)s)")
    command.add_argument("--log", action="store_true", help="fit the logarithm of the response")
    command.add_argument("--output", type=Path, help="where to write the law (default: TABLE with .law.json)")
    command = commands.add_parser("predict", help="the response that a law gives, with an interval")
    command.add_argument("--law", dest="file", type=Path, required=True, help="a law that `fit` or a study wrote")
    command.add_argument("--params", type=float, required=True, help="P")
    command.add_argument("--steps", type=float, required=True, help="S")
    command.add_argument("--protocol", default="lossless", help="of a study's law: lossless (default) or published")
    command = commands.add_parser("doctor", help="whether this machine computes the known answers, and what it is like")
    command.set_defaults(file="")  # it works on none
    return parser.parse_args()


def _tokenizer(arguments):
    return arguments.tokenizer or arguments.model / "tokenizer.json"


def compress(arguments):
    import torch

    from bitlaw.compression import codec, scoring
    from bitlaw.data import seven_bit, tokens
    from bitlaw.models import checkpoint

    torch.set_num_threads(arguments.threads)
    data = _read(arguments.file)
    tokenizer, spelling, tokenizer_sha256 = tokens.open_tokenizer(_tokenizer(arguments))
    model = checkpoint.load(arguments.model, arguments.precision)
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])
    if max((int(i.max()) for i in ids), default=0) >= model.vocabulary:
        raise InputError(
            f"{arguments.model}: knows {model.vocabulary} tokens, the tokenizer more: give the model's own"
        )
    weights = checkpoint.describe(arguments.model)["weights_sha256"]
    header = codec.header(model, weights, tokenizer_sha256, arguments.precision)
    if header.mode == "invariant":
        records = codec.encode(chunks, scoring.score(model, ids, 1 << 13, arguments.file.name))
    else:
        records = codec.encode_lockstep(model, chunks, ids)
    stream = codec.pack(header, records)
    target = arguments.output or arguments.file.with_name(arguments.file.name + ".blaw")
    with replacing(target) as temporary:
        temporary.write_bytes(stream)
    ratio = f", ratio {len(stream) / len(data):.4f}" if data else ""
    print(f"{arguments.file}: {len(data)} bytes to {len(stream)} ({target}){ratio}")


def decompress(arguments):
    import torch

    from bitlaw.compression import codec

    if not arguments.output and arguments.file.suffix != ".blaw":
        raise InputError(f"{arguments.file}: does not end in .blaw; say where to write with --output")
    torch.set_num_threads(arguments.threads)
    data = codec.restore(_read(arguments.file), arguments.model, _tokenizer(arguments))
    target = arguments.output or arguments.file.with_suffix("")
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    print(f"{arguments.file}: {len(data)} bytes restored ({target})")


def doctor(arguments):
    from bitlaw.doctor import report

    if wrong := report():
        raise InputError(wrong)


def fit(arguments):
    import json

    import pandas as pd

    from bitlaw.laws import bootstrap, fitting, formatting

    try:
        table = pd.read_csv(arguments.file)
    except (OSError, ValueError) as error:
        raise InputError(f"{arguments.file}: cannot be read as CSV ({error})") from None
    wanted = [arguments.size, arguments.steps, arguments.response]
    column, _, value = (arguments.where or "").partition("=")
    for name in [*wanted, *([column] if column else [])]:
        if name not in table:
            raise InputError(f"{arguments.file}: no column {name!r}; it has {', '.join(table.columns)}")
    if column:
        table = table[table[column].astype(str) == value]
    for name in wanted:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"{arguments.file}: column {name!r} holds {table[name].iloc[0]!r}; numbers are needed")
    law = fitting.fit(*(table[name] for name in wanted), arguments.size, arguments.form, arguments.loss,
                   arguments.delta, arguments.log)  # fmt: skip
    if arguments.loss == "ls" and not arguments.log:
        drawn = bootstrap.over_cells(law)
        law["samples"] = drawn.pop("samples")
        law["bootstrap"] = drawn
    target = arguments.output or arguments.file.with_suffix(".law.json")
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(law, indent=1, allow_nan=False) + "\n")
    print(formatting.listing(law))
    print(f"law written to {target}")


def predict(arguments):
    import json

    from bitlaw.laws import bootstrap

    try:
        law = json.loads(_read(arguments.file))
        law = law if "form" in law else law[arguments.protocol]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{arguments.file}: holds no law of protocol {arguments.protocol!r}; give one that `fit` or a "
                         "study wrote") from None  # fmt: skip
    said = bootstrap.interval(law, arguments.params, arguments.steps)
    span = "no interval: the law holds no bootstrap"
    if said["low"] is not None:
        span = f"95 % {said['low']:.4f} to {said['high']:.4f}"
    print(f"CR {said['ratio']:.4f} ({span})")
    for sentence in said["outside"]:
        print(f"extrapolation: {sentence}")
    for reason in law.get("verdict_reasons", []):
        print(f"no law: {reason}")


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def main():
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        commands = {"compress": compress, "decompress": decompress, "doctor": doctor, "fit": fit, "predict": predict}
        commands[arguments.command](arguments)
    except (ValueError, FloatingPointError, OSError) as error:
        where = "" if str(arguments.file) in str(error) else f"{arguments.file}: "
        sys.exit(f"bitlaw: {where}{error}")


if __name__ == "__main__":
    main()
