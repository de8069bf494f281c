"""`bitlaw compress`: a file to a stream that decodes."""

import sys
from pathlib import Path

from bitlaw.commands import files, model_options

CHUNK = 2048


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("compress", help="write FILE.blaw")
    command.add_argument("file", metavar="FILE", help="what to read; - is standard input")
    model_options.add(command)
    command.add_argument("--output", help=files.OUTPUT)
    command.add_argument(
        "--precision", help="exact, fp32, bf16, fp16 or int8 (default: exact where it computes the model, else fp32)"
    )


def run(arguments):
    """Compress arguments.file."""
    from bitlaw.compression import codec, scoring, stream_format
    from bitlaw.data import seven_bit, tokens
    from bitlaw.models import checkpoint

    target = files.target(arguments.output, arguments.file, f"{arguments.file}.blaw")
    files.check_threads(arguments.threads)
    data = files.contents(arguments.file)
    tokenizer, spelling, tokenizer_sha256 = tokens.open_tokenizer(model_options.tokenizer(arguments))
    precision = arguments.precision or _best_precision(arguments.model)
    model = checkpoint.load(arguments.model, precision)
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])
    checkpoint.check_vocabulary(model, ids, f"{arguments.model}: ")
    weights = checkpoint.describe(arguments.model)["weights_sha256"]
    if precision == stream_format.EXACT:
        header = codec.header(model, weights, tokenizer_sha256, precision, len(chunks))
        scores = scoring.score(model, ids, None, arguments.threads, Path(arguments.file).name)
        records = [codec.record(chunk, own[:3]) for chunk, own in zip(chunks, scores, strict=True)]
    else:
        import torch

        torch.set_num_threads(arguments.threads)
        header = codec.header(model, weights, tokenizer_sha256, precision, len(chunks))
        records = codec.encode_lockstep(model, header, chunks, ids)
    stream = stream_format.pack(header, records)
    ratio = f", ratio {len(stream) / len(data):.4f}" if data else ""
    files.put(target, stream, f"{arguments.file}: {len(data)} bytes to {len(stream)} ({target}){ratio}")


def _best_precision(folder):
    """exact where it computes the model; else fp32, which says what that means for the stream."""
    from bitlaw.models.checkpoint import read_config
    from bitlaw.models.exact import description

    reason = description.covers(read_config(folder))
    if reason is None:
        return "exact"
    print(f"{folder}: coded in fp32, as exact arithmetic does not compute it ({reason}); the stream decodes where the "
          "same kernels run", file=sys.stderr)  # fmt: skip
    return "fp32"
