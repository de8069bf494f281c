"""`bitlaw decompress`: a stream back to the file that it was made from."""

import sys
from pathlib import Path

from bitlaw import InputError
from bitlaw.commands import files, model_options

SUFFIX = ".blaw"


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("decompress", help="restore the file that was compressed")
    command.add_argument("file", metavar="FILE", help="what to read; - is standard input")
    model_options.add(command)
    files.add_target(command)
    command.add_argument("-t", "--test", action="store_true", help="decode and check it all, write nothing")


def run(arguments):
    """Decompress arguments.file."""
    from bitlaw.compression import files as streams
    from bitlaw.runtime.logs import progress

    target = None if arguments.test else _target(arguments)
    size, show = 0, None

    def report(done, count):
        nonlocal show
        show = show or progress(arguments.file, count, "chunks")
        show(done)

    with model_options.device(arguments), files.reading(arguments.file) as source:
        model = model_options.folder_and_tokenizer(arguments)
        parts = streams.decompress(source, *model, arguments.device, arguments.threads, report)
        if arguments.test:
            size = sum(map(len, parts))
        else:
            with files.writing(target, arguments.force) as sink:
                for part in parts:
                    sink.write(part)
                    size += len(part)
    print(f"{arguments.file} : {size} bytes ({target or 'tested'})", file=sys.stderr)


def _target(arguments):
    if not arguments.output and arguments.file != files.STANDARD and Path(arguments.file).suffix != SUFFIX:
        raise InputError(f"{arguments.file}: unknown suffix ({SUFFIX} expected); say where to write with --output")
    return files.target(arguments, str(Path(arguments.file).with_suffix("")))
