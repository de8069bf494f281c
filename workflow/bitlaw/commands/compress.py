"""`bitlaw compress`: a file to a stream that decodes."""

import sys

from bitlaw import InputError
from bitlaw.commands import files, model_options

CHUNK_BYTES = 32768  # docs/command_line.md has the measurement


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("compress", help="write FILE.blaw")
    command.add_argument("file", metavar="FILE", help="what to read; - is standard input")
    model_options.add(command)
    files.add_target(command)
    command.add_argument("--precision", help=model_options.PRECISION)
    command.add_argument(
        "--chunk-bytes", type=int, default=CHUNK_BYTES,
        help="bytes that see no others before them and decode side by side: more make the stream smaller (%(default)s)",
    )  # fmt: skip
    command.add_argument("-t", "--test", action="store_true", help="decode and compare before the stream is written")


def run(arguments):
    """Compress arguments.file."""
    from bitlaw.compression import files as streams
    from bitlaw.runtime.logs import progress

    target = files.target(arguments, f"{arguments.file}.blaw")
    files.check_chunk_bytes(arguments.chunk_bytes)
    if target == files.STANDARD and sys.stdout.isatty() and not arguments.force:
        raise InputError("standard output is a terminal; name a file with --output (--force writes there anyway)")
    with model_options.device(arguments), files.reading(arguments.file) as source:
        source.peek(1)  # what cannot be read is said before the model is loaded
        folder, tokenizer = model_options.folder_and_tokenizer(arguments)
        precision = model_options.precision(arguments, folder)
        coder = streams.open_coder(folder, tokenizer, precision, arguments.device, arguments.threads)
        with files.writing(target, arguments.force) as sink:
            report = progress(arguments.file, files.size_of(arguments.file), "B")
            coded = streams.compress(
                source, sink, files.scratch(target), coder, arguments.chunk_bytes, arguments.threads, report
            )
            if arguments.test:
                sink.seek(0)
                streams.check(sink, coder, coded, arguments.threads)
    ratio = f"{100 * coded.stream / coded.size:.2f}%" if coded.size else "empty"
    tested = ", tested" if arguments.test else ""
    print(f"{arguments.file} : {ratio} ({coded.size} => {coded.stream} bytes, {target}{tested})", file=sys.stderr)
