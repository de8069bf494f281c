"""Replacing files and folders: all or nothing, also when the writer is killed."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from bitlaw.atomic import replacing

WRITER = """
import sys, time
from pathlib import Path
from bitlaw.atomic import replacing

with replacing(sys.argv[1]) as new:
    if sys.argv[2] == "folder":
        new.mkdir()
        (new / "part").write_text("half")
    else:
        new.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""


def write(path, kind, text):
    with replacing(path) as new:
        if kind == "folder":
            new.mkdir()
            (new / "whole").write_text(text)
        else:
            new.write_text(text)


def content(path, kind):
    return {p.name: p.read_text() for p in path.iterdir()} if kind == "folder" else path.read_text()


def started(path, kind):
    """A process that is in the middle of writing `path`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", WRITER, str(path), kind]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    return process


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_target_appears_whole_and_is_replaced_whole(tmp_path, kind):
    path = tmp_path / "made" / "on the way" / "x.json"
    for text in ("first", "second"):
        write(path, kind, text)
        assert content(path, kind) == ({"whole": text} if kind == "folder" else text)
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("before", [True, False])
def test_an_exception_leaves_nothing_new(tmp_path, kind, before):
    path = tmp_path / "x"
    if before:
        write(path, kind, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as new:
        if kind == "folder":
            new.mkdir()
        (new / "part" if kind == "folder" else new).write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == ([path] if before else [])
    if before:
        assert content(path, kind) == ({"whole": "old"} if kind == "folder" else "old")


def test_nothing_written_is_an_error_and_keeps_the_old(tmp_path):
    path = tmp_path / "x"
    write(path, "file", "old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path, kind):
    path = tmp_path / "x"
    process = started(path, kind)
    (left,) = tmp_path.iterdir()
    end(process)
    assert list(tmp_path.iterdir()) == [left] and not path.exists()
    write(path, kind, "new")
    assert list(tmp_path.iterdir()) == [path] and content(path, kind) == (
        {"whole": "new"} if kind == "folder" else "new"
    )


def test_a_living_writer_is_left_alone(tmp_path):
    process = started(tmp_path / "x", "file")
    try:
        (others,) = tmp_path.iterdir()
        write(tmp_path / "x", "file", "new")
        assert others.read_text() == "half" and (tmp_path / "x").read_text() == "new"
    finally:
        end(process)


def test_only_temporaries_of_this_path_and_host_are_swept(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone, host = process.pid, socket.gethostname()
    kept = [
        f".x.other-{host}.{gone}.tmp",  # another host's: its processes are unknown here
        f".x.{host}.other.{gone}.tmp",
        f".xy.{host}.{gone}.tmp",  # another target's
        f"x.{host}.{gone}.tmp",
        f".x.{host}.{gone}.tmp.txt",
        f".x.{host}.tmp",
        f".x.{host}.1.tmp",  # a process that lives, though not ours
    ]
    swept = [f".x.{host}.{gone}.tmp", f".x.{host}.{os.getpid()}.tmp", f".x.{host}.{10**30}.tmp"]
    for name in [*kept, *swept]:
        (tmp_path / name).write_text("")
    write(tmp_path / "x", "file", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "x"])
