"""Write to a temporary name in the same folder, then rename: a reader sees all of a file or nothing."""

import os
import shutil
import socket
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    Works for a file and for a folder (an existing target folder is removed first). What a killed writer of the
    same path left beside it is removed first; one process must not write one path twice at a time.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.tmp")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _prefix(path):
    """How a temporary name of `path` begins; with the host, as a process number means nothing on another one."""
    return f".{path.name}.{socket.gethostname()}."


def _sweep(path):
    """Remove the temporaries of `path` whose writer on this host is gone, or had this process's number."""
    prefix = _prefix(path)
    for other in path.parent.iterdir():
        number = other.name.removeprefix(prefix).removesuffix(".tmp")
        if other.name == f"{prefix}{number}.tmp" and number.isdecimal() and not _writes(int(number)):
            with suppress(OSError):  # another writer may be sweeping too
                _remove(other)


def _writes(number):
    """Whether the process `number` lives on this host and is not this one."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return number != os.getpid()


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
