"""What every download shares: how long to wait, what counts as a failure, and addresses and errors in one line."""

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import urllib3

from bitlaw import InputError

TIMEOUT = (5, 30)  # seconds to connect, and between two reads: a dead place costs seconds, a slow one is waited for
FAILURES = (InputError, OSError, urllib3.exceptions.HTTPError)  # an OSError are those of requests, too


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
