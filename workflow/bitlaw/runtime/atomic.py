"""Write to a temporary name in the same folder, then rename: a reader sees all of a file or nothing.

A writer that must not be overtaken by a ghost of itself claims its files first, see `claim`.
"""

import atexit
import errno
import glob
import os
import shutil
import socket
from contextlib import contextmanager, suppress
from pathlib import Path

_claims = {}  # file that this process has claimed → its claim


class Superseded(RuntimeError):
    """Another process has claimed the file since; nothing was written."""


def claim(*paths):
    """Make this process the only one that `replacing` lets write the files `paths`, until another claims them.

    A cluster that loses sight of a node starts its jobs anew elsewhere; the old ones may live on and finish last.
    Each job therefore leaves a claim beside its file when it starts, then removes the claims of all earlier writers,
    then their temporaries. `replacing` makes its temporary, then touches its claim, then renames. A claim that could
    still be touched was removed after that, so that the temporary was there to be removed: once the newer job has
    begun its work no older one can rename any more. No lock is needed, which a shared file system may not have or
    may keep for a dead node; only that it makes, removes and renames one name at a time.

    No other file of the folder may be called like one of `paths` with a dot and more behind it.
    """
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        _claims[path] = path.with_name(f"{_prefix(path)}{os.getpid()}.claim")
        _claims[path].touch()
        for kind in ("claim", "tmp"):
            for other in path.parent.glob(f".{glob.escape(path.name)}.*.{kind}"):
                if other != _claims[path]:
                    with suppress(FileNotFoundError):  # its writer may have removed it meanwhile
                        _remove(other)


@atexit.register
def _release(*paths):
    """Remove this process's claims on `paths`, or all that it still has when it ends without having written."""
    for path in paths or tuple(_claims):
        if path in _claims:
            _claims.pop(path).unlink(missing_ok=True)


def _still_ours(path):
    """Raise Superseded when this process claimed `path` and another did so later."""
    claim = _claims.get(path)
    if claim is None:
        return
    try:
        os.utime(claim)  # asks the file server; whether the file exists might be answered from a node's cache
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        raise Superseded(f"{path}: a later job has taken it over; the result of this one is not written") from None


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error.

    Works for a file and for a folder (an existing target folder is removed first). What a killed writer of the
    same path left beside it is removed first; one process must not write one path twice at a time. Raises
    Superseded, and leaves the target alone, when this process has claimed it and another has since (see `claim`).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.tmp")
    try:
        yield temporary
        _still_ours(path)
        if path.is_dir():
            shutil.rmtree(path)
        try:
            os.replace(temporary, path)
        except FileNotFoundError:
            _still_ours(path)
            raise
        _release(path)
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
