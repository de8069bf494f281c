"""A folder of source files as `sources.fetch` leaves it."""

import hashlib
import json


def source(folder, files):
    """A source folder of name -> bytes, as `sources.fetch` leaves it."""
    folder.mkdir(exist_ok=True)
    entries = []
    for name, data in files.items():
        (folder / name).write_bytes(data)
        entries.append({"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (folder / "source.json").write_text(json.dumps({"name": "mine", "licence": "CC0", "files": entries}))
    return folder
