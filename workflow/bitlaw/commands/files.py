"""What the commands that read and write files have in common: `-`, where a result goes, and how it gets there."""

import sys
from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.atomic import check_file_target, replacing

STANDARD = "-"  # as FILE standard input, as --output standard output; a file of that name is ./-
OUTPUT = (
    "where to write; - is standard output (default: FILE with or without .blaw, - if FILE is -); "
    "of what is there already only a regular file is replaced, and a link is followed"
)
MOST_THREADS = 1024


def target(output, file, default):
    """Where the result of `file` goes, checked before the work begins: a path or STANDARD.

    output: what --output names, or None, then `default`, or STANDARD where `file` is that.
    """
    chosen = output or (STANDARD if file == STANDARD else default)
    if chosen != STANDARD:
        if not Path(chosen).parent.is_dir():
            raise InputError(f"{chosen}: there is no folder {Path(chosen).parent}; make it, or name another file")
        check_file_target(chosen)
    return chosen


def check_threads(threads):
    """Raise InputError for a number of threads that cannot be."""
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"--threads {threads}: give a number from 1 to {MOST_THREADS}")


def contents(file):
    """All bytes of standard input (STANDARD) or of the file `file`; InputError when it cannot be read."""
    if file == STANDARD:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def put(target, data, summary):
    """Write `data` to a file, whole or not at all, or to standard output; then say `summary` where no data goes."""
    if target == STANDARD:
        with open(sys.stdout.fileno(), "wb", closefd=False) as sink:
            sink.write(data)
        print(summary, file=sys.stderr)
        return
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    print(summary)
