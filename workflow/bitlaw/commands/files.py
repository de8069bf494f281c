"""What the commands that read and write files have in common: `-`, where a result goes, and how it gets there."""

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.atomic import check_file_target, replacing

STANDARD = "-"  # as FILE standard input, as --output standard output; a file of that name is ./-


def add_target(command):
    """Add --output and --force to the parser `command`."""
    command.add_argument(
        "-o", "--output", help="where to; - is standard output (default: FILE with or without .blaw; - if FILE is -)"
    )  # fmt: skip
    command.add_argument("-f", "--force", action="store_true", help="replace a file that is there, following a link")


def target(arguments, default):
    """Where the result goes, checked before the work begins: a path or STANDARD.

    It is arguments.output, or else `default`, or STANDARD where arguments.file is that. InputError for a file that is
    there (unless arguments.force), for the input itself, and for what is no file or in no folder.
    """
    chosen = arguments.output or (STANDARD if arguments.file == STANDARD else default)
    if chosen == STANDARD:
        return chosen
    if not Path(chosen).parent.is_dir():
        raise InputError(f"{chosen}: there is no folder {Path(chosen).parent}; make it, or name another file")
    check_file_target(chosen)
    if Path(chosen).exists() and Path(arguments.file).exists() and Path(chosen).samefile(arguments.file):
        raise InputError(f"{chosen}: is the file that is read; name another one with --output")
    _check_free(chosen, arguments.force)
    return chosen


def _check_free(path, force):
    if not force and Path(path).exists():
        raise InputError(f"{path} already exists; not overwritten (--force replaces it)")


def check_chunk_bytes(count):
    """Raise InputError for a number of bytes that no chunk of a stream can have."""
    from bitlaw.compression.stream_format import LARGEST_CHUNK

    if not 1 <= count <= LARGEST_CHUNK:
        raise InputError(f"--chunk-bytes {count}: give a number from 1 to {LARGEST_CHUNK}")


@contextmanager
def reading(file):
    """The file `file`, or standard input (STANDARD), open in binary; InputError when it cannot be read."""
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open(file, "rb"))
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror})") from None
        yield opened


def contents(file):
    """All bytes of the file `file`, or of standard input (STANDARD); InputError when it cannot be read."""
    with reading(file) as opened:
        return opened.read()


@contextmanager
def writing(chosen, force=False):
    """Yield a binary file that becomes the file `chosen`, or goes to standard output, if all is well and only then.

    The data wait in a temporary file meanwhile: beside `chosen`, or in the system's folder for temporary files.
    """
    if chosen == STANDARD:
        with tempfile.TemporaryFile() as temporary:
            yield temporary
            temporary.seek(0)
            with open(sys.stdout.fileno(), "wb", closefd=False) as sink:
                shutil.copyfileobj(temporary, sink)
        return
    with replacing(chosen) as path, open(path, "w+b") as temporary:
        yield temporary
        _check_free(chosen, force)  # again: the work may have taken hours


def scratch(chosen):
    """The folder for what waits until it is written to `chosen`; None: the system's."""
    return None if chosen == STANDARD else Path(os.path.realpath(chosen)).parent


def size_of(file):
    """Bytes of the file `file`; None of standard input and of what has no size."""
    return (Path(file).stat().st_size or None) if Path(file).is_file() and file != STANDARD else None
