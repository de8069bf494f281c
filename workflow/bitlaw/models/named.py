"""A model as a person names it: a checkpoint folder, a GGUF file, or a repository on the Hub at a revision.

The latter two become checkpoint folders in this user's cache, once: a GGUF file by its hash, a revision by the commit
that it pointed to when it was first named.
"""

import logging
import os
import re
from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.hashing import digest

log = logging.getLogger("bitlaw")

REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")


def folder(name):
    """The checkpoint folder (Path) that `name` stands for.

    Raises InputError, one line with the remedy, when there is no such thing, or nothing that can be made of it.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        return _of_gguf(path)
    if given := REPOSITORY.fullmatch(str(name)):
        return _of_hub(given["repository"], given["revision"])
    raise InputError(
        f"{name}: no folder or GGUF file of that name; a model on the Hugging Face Hub is named with its revision, as "
        "owner/name@main"
    )


def cache():
    """The folder that keeps what is made here: $XDG_CACHE_HOME/bitlaw or ~/.cache/bitlaw."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitlaw"


def _of_gguf(path):
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path}: not a GGUF file; give one, or a folder with config.json and *.safetensors")
    from bitlaw.models import gguf_file, gguf_tokenizer

    makers = digest(gguf_file.__file__, gguf_tokenizer.__file__)[:8]  # another converter may make another model
    made = cache() / "gguf" / f"{digest(path)[:32]}-{makers}"
    if not (made / "config.json").exists():
        gguf_file.convert_file(path, made)
        log.info("%s: converted, kept in %s", path, made)
    return made


def _of_hub(repository, revision):
    from bitlaw.models import hub

    pins = cache() / "commits"
    pin = pins / repository / revision
    if pin.exists():
        made = _place(repository, pin.read_text().strip())
        if (made / "source.json").exists():  # written with all the rest, or not at all
            return made
    commit = hub.resolve(repository, revision, None, pins)
    made = _place(repository, commit)
    hub.fetch_model(repository, revision, made, None, commit, pins)
    log.info("%s@%s: commit %s, kept in %s", repository, revision, commit, made)
    return made


def _place(repository, commit):
    return cache() / "hub" / repository / commit / "checkpoint"
