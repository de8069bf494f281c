"""The command line: compress files with a language model, measure how well it does; fit a law, predict from it."""

import argparse
import signal
import sys

from bitlaw.commands import compress, decompress, doctor, files, fit, measure, predict
from bitlaw.runtime import gpu, logs

COMMANDS = {
    "compress": compress,
    "decompress": decompress,
    "measure": measure,
    "fit": fit,
    "predict": predict,
    "doctor": doctor,
}


def main():
    parser = argparse.ArgumentParser(prog="bitlaw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        command.add(commands)
    arguments = parser.parse_args()
    logs.for_a_person()
    try:
        COMMANDS[arguments.command].run(arguments)
    except (ValueError, FloatingPointError, OSError, gpu.DeviceError) as error:
        _end(arguments, error)
    except MemoryError:
        _end(arguments, "more memory was needed than there is; a smaller --chunk-bytes or fewer --threads need less")
    except KeyboardInterrupt:
        print("bitlaw: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _end(arguments, error):
    """Exit with 1 and one line on standard error that names the file."""
    named = arguments.file if isinstance(arguments.file, list) else [arguments.file]
    named = ["standard input" if file == files.STANDARD else str(file) for file in named]
    known = any(file in str(error) for file in named)
    sys.exit(f"bitlaw: {error}" if known else f"bitlaw: {', '.join(named)}: {error}")


if __name__ == "__main__":
    main()
