"""Get one archive over http, from disk, or through pip's configured index: resumable and checked by hash.

A place is a dict as in the configuration: {url} or {package, file}, with md5 and sha256 where they are known.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3

from bitlaw import InputError
from bitlaw.data import package_index
from bitlaw.data.network import FAILURES, TIMEOUT, file_name, reason, shown
from bitlaw.runtime.atomic import write_text
from bitlaw.runtime.hashing import digest
from bitlaw.runtime.logs import progress

log = logging.getLogger("bitlaw")

TRIES = 20  # connections to one place, as long as each of them brings bytes
BLOCK = 1 << 16  # bytes a read: what a cut connection can lose


def download(place, cache, limit=None):
    """Bring the archive of `place` into the folder `cache`, going on where an earlier run stopped: its path.

    Its hashes are checked, the index's where the place has none. Where neither is known, more than `limit` bytes are
    refused, and so is a web page in place of a file. Raises InputError when no copy can be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url, hashes, certificates in _copies(place, reasons):
        part = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.part"
        try:
            _complete(url, part, certificates, hashes, limit)
            return part
        except FAILURES as error:
            reasons.append(f"{shown(url)}: {reason(error)}" if "package" in place else reason(error))
    raise InputError("; ".join(reasons))


def check(path, hashes, what):
    """Raise InputError unless the file at `path` has the md5 and sha256 in `hashes` (either may be missing)."""
    for kind, expected in _hashes(hashes).items():
        if (actual := digest(path, kind=kind)) != expected.lower():
            raise InputError(f"{what} has {kind} {actual} where {expected} is expected")


def _hashes(known):
    """Those of the hashes {kind: hexadecimal} that are checked here."""
    return {kind: known[kind] for kind in ("md5", "sha256") if kind in known}


def _copies(place, reasons):
    """Yield (url, hashes, file of certificates or None) for each copy of a place's archive; `reasons` as in copies."""
    if "url" in place:
        yield place["url"], _hashes(place), None
        return
    settings, project = package_index.pip_settings(), place["package"].partition("==")[0].strip()
    for url, hashes in package_index.copies(project, place["file"], settings, reasons):
        yield url, _hashes(place) or _hashes(hashes), settings.get("cert")


def _complete(url, part, certificates, hashes, limit):
    """Bring the file `part` to the whole of `url`, going on where an earlier try stopped, and check its hashes.

    A part that an earlier run left may belong to an older version of the file: when the hashes do not fit, the
    download starts once more from nothing. A file with wrong hashes is deleted and InputError raised.
    """
    if (resumed := part.exists()) and hashes:
        with suppress(InputError):  # complete already when the kill came between download and extraction
            return check(part, hashes, "part")
    if urlsplit(url).scheme == "file":
        path = url2pathname(urlsplit(url).path)
        if not hashes:
            _refuse_more(os.path.getsize(path), limit)
        shutil.copyfile(path, part)
    else:
        _get_all(url, part, certificates, hashes, limit)
    try:
        check(part, hashes, "the download")
    except InputError as error:
        part.unlink()
        if not resumed:
            raise
        log.warning("%s: %s, after going on from an earlier part; starting again", shown(url), error)
        _complete(url, part, certificates, hashes, limit)


def _refuse_more(count, limit):
    if limit is not None and count > limit:
        raise InputError(
            f"the download has {count} bytes or more, which passes the limit of {limit}; raise `limit`, or give the "
            "archive's sha256 if only a part of it is extracted"
        )


def _get_all(url, part, certificates, hashes, limit):
    for attempt in range(1, TRIES + 1):
        before = _size(part)
        try:
            return _get(url, part, certificates, hashes, limit)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if _size(part) <= before or attempt == TRIES:  # a place that brings nothing is left at once
                raise
            log.warning("%s: cut at %d bytes (%s), going on from there", shown(url), _size(part), reason(error))
            time.sleep(min(1, 0.05 * attempt))


def _size(part):
    return part.stat().st_size if part.exists() else 0


def _get(url, part, certificates, hashes, limit):
    """One request for what `part` lacks. Beside it, a note keeps the file's size and validator as first told."""
    start, note = _size(part), part.with_suffix(".json")
    known = json.loads(note.read_text()) if start and note.exists() else {}
    # offsets are those of the file itself; a file changed since is sent whole; a header that is None is not sent
    rest = {"Range": f"bytes={start}-", "If-Range": known.get("validator")} if start else {}
    headers = {"Accept-Encoding": "identity", **rest}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, verify=certificates or True) as reply:
        if start and reply.status_code in (206, 416):
            first, size = _content_range(reply)
            same = known.get("size") in (None, "*", size) and known.get("validator") in (None, _validator(reply))
            if reply.status_code == 416 and same and size == str(start):
                return  # nothing is lacking
            if reply.status_code == 416 or not same or first != str(start):
                part.unlink()  # of another version of the file
                return _get(url, part, certificates, hashes, limit)
        elif reply.status_code != 200:
            raise requests.HTTPError(f"status {reply.status_code} {reply.reason}")
        else:
            start, size = 0, _content_length(reply)
            part.unlink(missing_ok=True)
        if not hashes:
            _refuse_page(url, reply)
            _refuse_more(start if size == "*" else int(size), limit)
        if reply.status_code == 200:
            write_text(note, json.dumps({"size": size, "validator": _validator(reply)}))
        _receive(reply, url, part, start, None if size == "*" else int(size), None if hashes else limit)


def _receive(reply, url, part, start, size, limit):
    """Append the body of `reply`, from byte `start` of a file of `size` bytes (None: unknown) on, to `part`."""
    report = progress(f"download {file_name(url)}", size, "MB", 1e6)
    with open(part, "ab", buffering=0) as sink:  # unbuffered: a kill loses nothing that has arrived
        for block in reply.raw.stream(BLOCK, decode_content=False):
            sink.write(block)
            start += len(block)
            try:
                _refuse_more(start, limit)
            except InputError:
                part.unlink()
                raise
            report(start)
    if size is not None and start != size:
        raise requests.ConnectionError(f"{start} of {size} bytes came")


def _content_range(reply):
    """(first byte or None, size of the whole file or "*" or None) that the reply tells, as str."""
    told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", reply.headers.get("Content-Range", ""))
    return told.groups() if told else (None, None)


def _content_length(reply):
    """Bytes of the body, as str of digits; "*" where the reply does not tell."""
    told = reply.headers.get("Content-Length", "*").strip()
    if not re.fullmatch(r"[0-9]+|\*", told):
        raise requests.HTTPError(f"Content-Length is {told!r}")
    return told


def _validator(reply):
    """What tells this version of the file from another: its strong ETag, or when it was modified; None without."""
    tag = reply.headers.get("ETag", "W/")  # a weak tag, W/..., does not promise the same bytes
    return reply.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _refuse_page(url, reply):
    """Raise InputError for what no hash would tell: a page to log in or an error's instead of the file, or one packed.

    Both come with status 200 from portals and proxies.
    """
    kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and not re.search(r"\.x?html?$", file_name(url), re.IGNORECASE):
        raise InputError("a web page came instead of the file; open the address in a browser to see what it asks for")
    packed = reply.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("", "identity") and not re.search(r"\.(t?gz|br|zst)$", file_name(url)):
        raise InputError(f"it came packed ({packed}) though this was not asked for")
