"""Where processes of one user on one machine meet."""

import os
import tempfile
from pathlib import Path

from bitlaw import InputError


def private_folder():
    """Path of a directory on this machine that only this user can write to, for locks; InputError where it is not."""
    user = os.getuid()
    runtime = [p for p in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}") if p and Path(p).is_dir()]
    place = Path(runtime[0]) / "bitlaw" if runtime else Path(tempfile.gettempdir()) / f"bitlaw-{user}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.lstat().st_uid != user:
        raise InputError(f"{place}: belongs to another user; set XDG_RUNTIME_DIR to a directory of your own")
    return place
