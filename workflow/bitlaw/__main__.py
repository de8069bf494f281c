"""The command line: compress and decompress files with a language model; fit a law to a table, predict from it."""

import argparse
import logging
import signal
import sys

from bitlaw.commands import compress, decompress, doctor, files, fit, predict

COMMANDS = {"compress": compress, "decompress": decompress, "fit": fit, "predict": predict, "doctor": doctor}


def main():
    parser = argparse.ArgumentParser(prog="bitlaw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        command.add(commands)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        COMMANDS[arguments.command].run(arguments)
    except (ValueError, FloatingPointError, OSError) as error:
        file = "standard input" if arguments.file == files.STANDARD else str(arguments.file)
        sys.exit(f"bitlaw: {error}" if file in str(error) else f"bitlaw: {file}: {error}")
    except KeyboardInterrupt:
        print("bitlaw: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
