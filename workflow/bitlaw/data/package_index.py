"""Where a file of a package lies: the pages that pip's configuration names, searched as pip would.

No code of a package is run; its archive is found by name and downloaded like any other file.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from pypi_simple import ACCEPT_ANY, PYPI_SIMPLE_ENDPOINT, ProjectPage, UnsupportedRepoVersionError

from bitlaw import InputError
from bitlaw.data.network import FAILURES, TIMEOUT, file_name, reason, shown


def copies(project, file, settings, reasons):
    """Yield (url, {kind: hash} as the page gives them) of every copy of `file` of the package `project`.

    settings: of `pip_settings`; pages of find-links come first, as they are near. A page that cannot be read or does
    not list the file adds a line to the list `reasons`.
    """
    project = re.sub(r"[-_.]+", "-", project).lower()
    pages = settings.get("find-links", "").split()
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        indexes = [settings["index-url"], *settings.get("extra-index-url", "").split()]
        pages += [f"{index.rstrip('/')}/{project}/" for index in indexes]
    for page in pages:
        try:
            listed = [(url, hashes) for url, hashes in _files(page, project, settings) if file_name(url) == file]
        except (*FAILURES, ValueError, LookupError, TypeError, UnsupportedRepoVersionError) as error:
            reasons.append(f"{shown(page)}: {reason(error)}")  # unreachable, or no index page
            continue
        if not listed:
            reasons.append(f"{shown(page)}: does not list {file}")
        yield from listed


def pip_settings():
    """pip's configuration, {option: str}, environment included; the public index where it names none.

    Asked of pip itself by its command, which merges its files and variables and is documented; what it imports is not.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"pip does not tell its configuration ({reason(error)})") from error
    settings = {"index-url": PYPI_SIMPLE_ENDPOINT}
    rows = re.findall(r"^(global|download|:env:)\.([\w-]+)=(.+)$", listing, re.MULTILINE)
    for section in ("global", "download", ":env:"):  # later ones win, and an empty value counts for nothing, as in pip
        given = {option: str(ast.literal_eval(text)).strip() for where, option, text in rows if where == section}
        settings |= {option: value for option, value in given.items() if value}
    return settings


def _files(page, project, settings):
    """(url, hashes) of every file that a page lists: HTML or JSON over http, a page or folder on disk."""
    if urlsplit(page).scheme in ("http", "https"):
        certificates = settings.get("cert") or True
        reply = requests.get(page, headers={"Accept": ACCEPT_ANY}, timeout=TIMEOUT, verify=certificates)
        reply.raise_for_status()
        listing = ProjectPage.from_response(reply, project)
    else:
        path = Path(url2pathname(urlsplit(page).path)).absolute()
        if (path / "index.html").is_file():
            path /= "index.html"
        if path.is_dir():
            return [(file.as_uri(), {}) for file in path.iterdir()]
        listing = ProjectPage.from_html(project, path.read_bytes(), path.as_uri())
    return [(package.url, package.digests) for package in listing.packages]
