"""Hashes of files, read in blocks: a file may be larger than memory."""

import hashlib

BLOCK = 1 << 22  # bytes


def digest(*paths, kind="sha256"):
    """Hexadecimal digest (sha256, or `kind`: md5 …) of the contents of `paths`, one after the other in that order."""
    state = hashlib.new(kind)
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                state.update(block)
    return state.hexdigest()
