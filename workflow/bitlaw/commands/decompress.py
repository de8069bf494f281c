"""`bitlaw decompress`: a stream back to the file that it was made from."""

from pathlib import Path

from bitlaw import InputError
from bitlaw.commands import files, model_options


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("decompress", help="restore the file that was compressed")
    command.add_argument("file", metavar="FILE", help="what to read; - is standard input")
    model_options.add(command)
    command.add_argument("--output", help=files.OUTPUT)


def run(arguments):
    """Decompress arguments.file."""
    from bitlaw.compression import codec

    if not arguments.output and arguments.file != files.STANDARD and Path(arguments.file).suffix != ".blaw":
        raise InputError(f"{arguments.file}: does not end in .blaw; say where to write with --output")
    target = files.target(arguments.output, arguments.file, Path(arguments.file).with_suffix(""))
    files.check_threads(arguments.threads)
    stream = files.contents(arguments.file)
    tokenizer = model_options.tokenizer(arguments)
    data, _ = codec.restore(stream, arguments.model, tokenizer, threads=arguments.threads)
    files.put(target, data, f"{arguments.file}: {len(data)} bytes restored ({target})")
