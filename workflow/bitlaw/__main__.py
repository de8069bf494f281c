"""The command line: compress and decompress files with a language model; fit a law to a table, predict from it."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.atomic import check_file_target, replacing, write_text

CHUNK = 2048
STANDARD = "-"  # as FILE standard input, as --output standard output; a file of that name is ./-
MOST_THREADS = 1024


def _arguments():
    parser = argparse.ArgumentParser(prog="bitlaw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("compress", "write FILE.blaw"), ("decompress", "restore the file that was compressed")):
        command = commands.add_parser(name, help=text)
        command.add_argument("file", metavar="FILE", help="what to read; - is standard input")
        command.add_argument("--model", type=Path, required=True, help="folder with config.json, *.safetensors")
        command.add_argument("--tokenizer", type=Path, help="tokenizer.json (default: the one in the model's folder)")
        command.add_argument(
            "--output",
            help="where to write; - is standard output (default: FILE with or without .blaw, - if FILE is -); "
            "of what is there already only a regular file is replaced, and a link is followed",
        )
        command.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads")
        if name == "compress":
            command.add_argument("--precision", default="fp32", help="fp32 (default), bf16, fp16 or int8")
    command = commands.add_parser("fit", help="fit a law to any table with two positive variables")
    command.add_argument("file", type=Path, metavar="TABLE", help="CSV file with a header")
    command.add_argument("--size", default="params_total", help="column of the first variable, P (%(default)s)")
    command.add_argument("--steps", default="step", help="column of the second variable, S (%(default)s)")
    command.add_argument("--response", default="cr_lossless", help="column of the response (%(default)s)")
    command.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE",
        help="take only rows where COLUMN holds VALUE (or !=, and of numbers <, <=, >, >=); given again, all must hold",
    )  # fmt: skip
    command.add_argument("--form", default="additive", help="additive, additive0, coupled, coupled0, multiplicative")
    command.add_argument("--loss", default="ls", help="ls (least squares, the default), huber or l1")
    command.add_argument("--delta", type=float, default=1e-3, help="where huber turns linear (%(default)s)")
    command.add_argument("--log", action="store_true", help="fit the logarithm of the response")
    command.add_argument("--output", type=Path, help="where to write the law (default: TABLE with .law.json)")
    command = commands.add_parser("predict", help="the response that a law gives, with an interval")
    command.add_argument("--law", dest="file", type=Path, required=True, help="a law that `fit` or a study wrote")
    command.add_argument("--params", type=float, required=True, help="P")
    command.add_argument("--steps", type=float, required=True, help="S")
    command.add_argument("--protocol", help="of a study's laws: lossless (the default where there is one) or published")
    return parser.parse_args()


def _tokenizer(arguments):
    return arguments.tokenizer or arguments.model / "tokenizer.json"


def compress(arguments):
    import torch

    from bitlaw.compression import codec, scoring
    from bitlaw.data import seven_bit, tokens
    from bitlaw.models import checkpoint

    target = _target(arguments, f"{arguments.file}.blaw")
    _check_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    data = _input(arguments.file)
    tokenizer, spelling, tokenizer_sha256 = tokens.open_tokenizer(_tokenizer(arguments))
    model = checkpoint.load(arguments.model, arguments.precision)
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])
    checkpoint.check_vocabulary(model, ids, f"{arguments.model}: ")
    weights = checkpoint.describe(arguments.model)["weights_sha256"]
    header = codec.header(model, weights, tokenizer_sha256, arguments.precision)
    if header.mode == "invariant":
        records = codec.encode(chunks, scoring.score(model, ids, 1 << 13, Path(arguments.file).name))
    else:
        records = codec.encode_lockstep(model, chunks, ids)
    stream = codec.pack(header, records)
    ratio = f", ratio {len(stream) / len(data):.4f}" if data else ""
    _put(target, stream, f"{arguments.file}: {len(data)} bytes to {len(stream)} ({target}){ratio}")


def decompress(arguments):
    import torch

    from bitlaw.compression import codec

    if not arguments.output and arguments.file != STANDARD and Path(arguments.file).suffix != ".blaw":
        raise InputError(f"{arguments.file}: does not end in .blaw; say where to write with --output")
    target = _target(arguments, Path(arguments.file).with_suffix(""))
    _check_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    data = codec.restore(_input(arguments.file), arguments.model, _tokenizer(arguments))
    _put(target, data, f"{arguments.file}: {len(data)} bytes restored ({target})")


def _target(arguments, default):
    """Where compress or decompress writes, checked before the work begins: a path or STANDARD."""
    target = arguments.output or (STANDARD if arguments.file == STANDARD else default)
    if target != STANDARD:
        if not Path(target).parent.is_dir():
            raise InputError(f"{target}: there is no folder {Path(target).parent}; make it, or name another file")
        check_file_target(target)
    return target


def _check_threads(threads):
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"--threads {threads}: give a number from 1 to {MOST_THREADS}")


def _input(file):
    return sys.stdin.buffer.read() if file == STANDARD else _read(Path(file))


def _put(target, data, summary):
    """Write `data` to a file, whole or not at all, or to standard output; then say `summary` where no data goes."""
    if target == STANDARD:
        with open(sys.stdout.fileno(), "wb", closefd=False) as sink:
            sink.write(data)
        print(summary, file=sys.stderr)
        return
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    print(summary)


def fit(arguments):
    import json

    from bitlaw.laws import any_table, bootstrap, fitting, formatting

    columns = {"--size": arguments.size, "--steps": arguments.steps, "--response": arguments.response}
    table = any_table.read(arguments.file, columns, arguments.where)
    target = arguments.output or arguments.file.with_suffix(".law.json")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: is no folder; make it first, or name another --output")
    law = fitting.fit(
        *(table[column] for column in columns.values()), params_kind=arguments.size, form=arguments.form,
        loss=arguments.loss, delta=arguments.delta, log=arguments.log, response=arguments.response,
    )  # fmt: skip
    if arguments.loss == "ls" and not arguments.log:
        redrawn = bootstrap.over_cells(law)
        law["samples"] = redrawn.pop("samples")
        law["bootstrap"] = redrawn
    write_text(target, json.dumps(law, indent=1, allow_nan=False) + "\n")
    print(f"P: {arguments.size}, S: {arguments.steps}")
    print(formatting.listing(law))
    print(f"law written to {target}")


def predict(arguments):
    from bitlaw.laws import bootstrap

    law = _law(arguments.file, arguments.protocol)
    said = bootstrap.interval(law, arguments.params, arguments.steps)
    span = "no interval: the law holds no bootstrap"
    if said["low"] is not None:
        span = f"95 % {said['low']:.4f} to {said['high']:.4f}"
    print(f"{law['response']} {said['ratio']:.4f} ({span})")
    for sentence in said["outside"]:
        print(f"extrapolation: {sentence}")
    for reason in law.get("verdict_reasons", []):
        print(f"no law: {reason}")


def _law(path, protocol):
    """The law in the file `path`, which `fit` wrote, or that of `protocol` among a study's; None: the one it has."""
    import json

    from bitlaw.laws import fitting

    try:
        content = json.loads(_read(path))
    except ValueError:
        content = None
    if isinstance(content, dict) and "form" in content:
        if protocol is not None:
            raise InputError(f"{path}: one law, of no protocol; leave --protocol out")
        law = content
    elif isinstance(content, dict) and content and all(isinstance(law, dict) for law in content.values()):
        protocol = protocol or ("lossless" if "lossless" in content else next(iter(content)))
        if protocol not in content:
            raise InputError(f"{path}: no law of protocol {protocol!r}; it has {', '.join(content)}")
        law = content[protocol]
    else:
        raise InputError(f"{path}: holds no law; give one that `fit` or a study wrote")
    fitting.check(law, path)
    return law


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def main():
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        {"compress": compress, "decompress": decompress, "fit": fit, "predict": predict}[arguments.command](arguments)
    except (ValueError, FloatingPointError, OSError) as error:
        file = "standard input" if arguments.file == STANDARD else str(arguments.file)
        sys.exit(f"bitlaw: {error}" if file in str(error) else f"bitlaw: {file}: {error}")
    except KeyboardInterrupt:
        print("bitlaw: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
