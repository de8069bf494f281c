"""Write to a temporary name in the same folder, then rename: a reader sees all of a file or nothing.

Nothing but a regular file is ever replaced by a file, and no folder by a folder unless this module wrote all that it
holds. A symbolic link is followed: what it points to is replaced and the link stays.

A writer that must not be overtaken by an earlier run of itself claims its files first, see `claim`.
"""

import atexit
import errno
import glob
import json
import os
import shutil
import socket
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

from bitlaw import InputError

WRITTEN = (
    ".written.json"  # in a folder that `replacing_folder` made: the paths of all else in it, which may be deleted again
)
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}

_claims = {}  # target that this process has claimed → its claim


class Superseded(RuntimeError):
    """Another process has claimed the file since; nothing was written."""


def claim(*paths):
    """Make this process the only one that is let write the files or folders `paths`, until another claims them.

    A cluster that loses sight of a node starts its jobs anew elsewhere; the old ones may live on and finish last.
    Each job therefore leaves a claim beside its target when it starts, then removes the claims of all earlier writers,
    then their temporaries. `replacing` and `replacing_folder` make their temporary, then touch their claim, then
    rename. A claim that could still be touched was removed after that, so that the temporary was there to be removed:
    once the newer job has begun its work no older one can rename any more. No lock is needed, which a shared file
    system may not have or may keep for a dead node; only that it makes, removes and renames one name at a time.

    No other file of the folder may be called like one of `paths` with a dot and more behind it.
    """
    for path in map(_followed, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        _claims[path] = path.with_name(f"{_prefix(path)}{os.getpid()}.claim")
        _claims[path].touch()
        for kind in ("claim", "tmp"):
            for other in path.parent.glob(f".{glob.escape(path.name)}.*.{kind}"):
                if other != _claims[path]:
                    with suppress(FileNotFoundError):  # its writer may have removed it meanwhile
                        _remove(other)


@contextmanager
def replacing(path):
    """Yield a temporary path beside the file `path`; rename it to `path` on success, remove it on any error.

    Missing folders above `path` are made. What a killed writer of the same path left beside it is removed first; one
    process must not write one path twice at a time. Raises InputError when something is at `path` that
    `check_file_target` refuses, and Superseded when this process has claimed it and another has since (see `claim`);
    what was there is then left alone.
    """
    check_file_target(path)
    with _temporary(_followed(path)) as (temporary, target):
        yield temporary
        _still_ours(target)
        check_file_target(path)  # again: the work may have taken hours
        _rename(temporary, target)


@contextmanager
def replacing_folder(path):
    """Yield a new empty folder beside the folder `path`; rename it to `path` on success, remove it on any error.

    A folder made so holds the file WRITTEN with the names of all others in it. One that is there already is replaced if
    it is empty or if all that it holds stands in its WRITTEN. Raises InputError when anything else is at `path`, which
    is then left alone, and Superseded as `replacing` does.
    """
    check_folder_target(path)
    with _temporary(_followed(path)) as (temporary, target):
        temporary.mkdir()
        yield temporary
        write_text(temporary / WRITTEN, json.dumps(sorted(_entries(temporary)), indent=0) + "\n")
        _still_ours(target)
        check_folder_target(path)
        if not target.exists():
            _rename(temporary, target)
            return
        before = temporary.with_suffix(".old.tmp")
        os.rename(target, before)  # first aside: deleting it may take long, and a kill would leave half of it
        try:
            _rename(temporary, target)
        except BaseException:
            os.rename(before, target)
            raise
        shutil.rmtree(before)


def write_text(path, text):
    """Write `text` as UTF-8 to the file `path`, all or nothing (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_file_target(path):
    """Raise InputError unless a file can be written at `path`: nothing is there, or a regular file.

    Of a symbolic link, what it points to counts; one that points into a folder that is not there is refused. So is a
    file without any permission to write, also where the user is root.
    """
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise InputError(f"{path}: is {_kind(mode)}, which is never replaced; name a file")
    if mode is not None and not mode & 0o222:
        raise InputError(f"{path}: is write-protected; `chmod u+w` it, or name another file")


def check_folder_target(path):
    """Raise InputError unless `replacing_folder` may make the folder `path` or replace what is there."""
    mode = _mode(path)
    if mode is None:
        return
    if not stat.S_ISDIR(mode):
        raise InputError(f"{path}: is {_kind(mode)} where a folder is to be made; move it away")
    try:
        written = set(json.loads((Path(path) / WRITTEN).read_text(encoding="utf-8")))
    except FileNotFoundError:
        written = set()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{Path(path) / WRITTEN}: cannot be read ({error}); move {path} away") from None
    if foreign := sorted(_entries(_followed(path)) - written - {WRITTEN}):
        raise InputError(f"{path}: holds {foreign[0]!r}, which was not written here; move the folder away to go on")


def _entries(folder):
    """Paths, relative to `folder`, of all files and folders in it, however deep; links are not followed."""
    return {str(entry.relative_to(folder)) for entry in folder.rglob("*")}


def _mode(path):
    """st_mode of what is at `path`, links followed; None if nothing is. InputError where nothing could be made."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink() and not _followed(path).parent.is_dir():
            raise InputError(f"{path}: is a link to {_followed(path)}, whose folder is not there") from None
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    if path.is_symlink() and not (_followed(path).exists() and path.samefile(_followed(path))):
        raise InputError(f"{path}: is a link to {_kind(mode)} that has no name; name a file")  # as of /dev/stdout
    return mode


def _kind(mode):
    return KINDS.get(stat.S_IFMT(mode), "neither file nor folder")


def _followed(path):
    """Where the symbolic link `path` leads; any other path as it is."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def _temporary(target):
    """Yield (temporary name beside `target`, `target`); whatever has the temporary name afterwards is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = target.with_name(f"{_prefix(target)}{os.getpid()}.tmp")
    try:
        yield temporary, target
        _release(target)
    finally:
        _remove(temporary)


def _rename(temporary, target):
    try:
        os.replace(temporary, target)
    except FileNotFoundError:
        _still_ours(target)
        raise


@atexit.register
def _release(*targets):
    """Remove this process's claims on `targets`, or all that it still has when it ends without having written."""
    for target in targets or tuple(_claims):
        if target in _claims:
            _claims.pop(target).unlink(missing_ok=True)


def _still_ours(target):
    """Raise Superseded when this process claimed `target` and another did so later."""
    claim = _claims.get(target)
    if claim is None:
        return
    try:
        os.utime(claim)  # asks the file server; whether the file exists might be answered from a node's cache
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        raise Superseded(f"{target}: a later job has taken it over; the result of this one is not written") from None


def _prefix(path):
    """How a temporary name of `path` begins; with the host, as a process number means nothing on another one."""
    return f".{path.name}.{socket.gethostname()}."


def _sweep(path):
    """Remove the temporaries of `path` whose writer on this host is gone, or had this process's number."""
    prefix = _prefix(path)
    for other in path.parent.iterdir():
        number = other.name.removeprefix(prefix).removesuffix(".tmp").removesuffix(".old")
        ours = other.name in (f"{prefix}{number}.tmp", f"{prefix}{number}.old.tmp")
        if ours and number.isdecimal() and not _writes(int(number)):
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
