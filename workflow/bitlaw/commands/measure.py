"""`bitlaw measure`: how well a model compresses files, every bit counted, without a study."""

from bitlaw.commands import files, model_options

CHUNK_BYTES = 2048  # as the studies have it: numbers compare


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("measure", help="bits a byte of files under a model, with intervals and an audit")
    command.add_argument(
        "file", metavar="FILE", nargs="+", help="files, folders with all below them, - (standard input)"
    )  # fmt: skip
    model_options.add(command)
    command.add_argument("--precision", help=model_options.PRECISION)
    command.add_argument(
        "--cut", choices=("bytes", "image", "speech"), default="bytes",
        help="bytes as they come, grey 32 x 64 patches of images, or 16-bit samples of sound (%(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--chunks", type=int, metavar="N", help="measure N chunks, drawn over all files by a fixed seed (default: all)"
    )  # fmt: skip
    command.add_argument("--chunk-bytes", type=int, default=CHUNK_BYTES, help="bytes in a chunk (%(default)s)")
    command.add_argument(
        "--convert", action="store_true", help="sound: to one channel of 16 bits, rate of the first file"
    )
    command.add_argument("--json", action="store_true", help="write JSON instead of a table")


def run(arguments):
    """Measure arguments.file."""
    import json
    import tempfile

    from bitlaw.commands import measurement, measurement_table

    files.check_chunk_bytes(arguments.chunk_bytes)
    model_options.check_threads(arguments.threads)
    model = model_options.folder_and_tokenizer(arguments)
    precision = model_options.precision(arguments, model[0])
    with tempfile.TemporaryDirectory(prefix="bitlaw-measure-") as folder:
        found = measurement.measure(arguments, *model, precision, folder)
    if arguments.json:
        print(json.dumps({"model": str(arguments.model)} | found, indent=1, allow_nan=False))
    else:
        print("\n".join(measurement_table.lines(str(arguments.model), found)))
