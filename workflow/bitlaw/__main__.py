"""The command line: compress and decompress files with a language model."""

import argparse
import logging
import os
import sys
from pathlib import Path

from bitlaw import InputError
from bitlaw.atomic import replacing

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
            command.add_argument("--precision", default="fp32", help="fp32 (default), bf16 or fp16")
    return parser.parse_args()


def _tokenizer(arguments):
    return arguments.tokenizer or arguments.model / "tokenizer.json"


def compress(arguments):
    import torch

    from bitlaw import ascii, checkpoints, codec, scoring, tokens

    torch.set_num_threads(arguments.threads)
    data = _read(arguments.file)
    tokenizer, spelling, tokenizer_sha256 = tokens.open_tokenizer(_tokenizer(arguments))
    model = checkpoints.load(arguments.model, arguments.precision)
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    ids = tokens.encode(tokenizer, spelling, [ascii.to_ascii(chunk) for chunk in chunks])
    if max((int(i.max()) for i in ids), default=0) >= model.vocabulary:
        raise InputError(
            f"{arguments.model}: knows {model.vocabulary} tokens, the tokenizer more: give the model's own"
        )
    weights = checkpoints.describe(arguments.model)["weights_sha256"]
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

    from bitlaw import codec

    if not arguments.output and arguments.file.suffix != ".blaw":
        raise InputError(f"{arguments.file}: does not end in .blaw; say where to write with --output")
    torch.set_num_threads(arguments.threads)
    data = codec.restore(_read(arguments.file), arguments.model, _tokenizer(arguments))
    target = arguments.output or arguments.file.with_suffix("")
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    print(f"{arguments.file}: {len(data)} bytes restored ({target})")


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def main():
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        {"compress": compress, "decompress": decompress}[arguments.command](arguments)
    except (ValueError, FloatingPointError, OSError) as error:
        where = "" if str(arguments.file) in str(error) else f"{arguments.file}: "
        sys.exit(f"bitlaw: {where}{error}")


if __name__ == "__main__":
    main()
