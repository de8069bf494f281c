"""Files, folders and `-` as a source that `data.shards` cuts: what a study's `fetch` leaves, of files that are here."""

import json
import os
import shutil
import sys
from pathlib import Path

from bitlaw import InputError
from bitlaw.commands.files import STANDARD


def collect(names, folder):
    """Make `folder` a source of the files `names` (files, folders with all that is below them, or STANDARD); its paths.

    Files are read where they are; what comes from a pipe is copied. Raises InputError for what cannot be read, what is
    empty, and what is named twice.
    """
    from bitlaw.runtime.hashing import digest

    folder, paths = Path(folder), []
    for name in names:
        paths += _files(name, folder / f"pipe-{len(paths)}")
    real = [path.resolve() for path in paths]
    for path in real:
        if real.count(path) > 1:
            raise InputError(f"{path}: is named twice; each byte is measured once")
    entries = [{"path": str(path), "bytes": path.stat().st_size, "sha256": digest(path)} for path in paths]
    source = {"name": ", ".join(map(str, names)), "licence": "not said", "files": entries}
    (folder / "source.json").write_text(json.dumps(source))
    return paths


def _files(name, copy):
    """Absolute paths of the files that `name` means; a pipe becomes the file `copy`."""
    path = Path(name)
    try:
        if name == STANDARD:
            with open(copy, "wb") as sink:
                shutil.copyfileobj(sys.stdin.buffer, sink)
            found = [copy]
        elif path.is_dir():
            found = sorted(inner for inner in path.rglob("*") if inner.is_file())
        elif path.is_file():
            found = [path]
        else:
            with open(path, "rb") as pipe, open(copy, "wb") as sink:
                shutil.copyfileobj(pipe, sink)
            found = [copy]
        for inner in found:
            if not os.access(inner, os.R_OK):
                raise InputError(f"{inner}: cannot be read (Permission denied)")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    if not any(inner.stat().st_size for inner in found):
        raise InputError(
            f"{'standard input' if name == STANDARD else name}: holds no bytes; there is nothing to measure"
        )
    return [inner.absolute() for inner in found]


def settings(cut, paths, chunks, convert):
    """The settings of a modality, as `shards.cut` takes them; `chunks`: how many, drawn over all (None: all)."""
    found = {"cut": cut} | (
        {"sampling": "head"} if chunks is None else {"sampling": "spread", "seed": 0, "chunks": chunks}
    )
    if cut == "image":
        found["patches"] = "all"
    if cut == "speech":
        found |= {"rate": _rate(paths[0]), "convert": convert}
    return found


def _rate(path):
    import soundfile

    try:
        return soundfile.info(path).samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be read as sound ({error}); --cut bytes takes any file") from None
