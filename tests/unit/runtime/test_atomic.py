"""Replacing files and folders: all or nothing, also when the writer is killed."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from bitlaw.runtime import atomic
from bitlaw.runtime.atomic import Superseded, claim, replacing

WRITER = """
import sys, time
from pathlib import Path
from bitlaw.runtime.atomic import replacing

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


GHOST = """
import sys
from bitlaw.runtime.atomic import Superseded, claim, replacing

claim(sys.argv[1])
print("claimed", flush=True)
sys.stdin.readline()
try:
    with replacing(sys.argv[1]) as new:
        new.write_text("ghost")
        print("written", flush=True)
        sys.stdin.readline()
except Superseded as error:
    sys.exit(f"superseded: {error}")
"""


def ghost(path):
    """A job that has claimed `path` and waits for a line before it writes, and for another before it renames."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", GHOST, str(path)], env=environment, text=True, **pipes)
    assert process.stdout.readline() == "claimed\n"
    return process


@pytest.mark.parametrize("written", [False, True], ids=["before it writes", "before it renames"])
def test_a_job_that_was_given_up_and_finishes_late_does_not_overwrite_its_retry(tmp_path, written):
    path = tmp_path / "x"
    process = ghost(path)
    if written:
        process.stdin.write("write\n")
        process.stdin.flush()
        assert process.stdout.readline() == "written\n"
    claim(path)
    assert len(list(tmp_path.iterdir())) == 1  # only our own claim
    write(path, "file", "retry")
    before = path.stat()
    _, message = process.communicate("go\ngo\n", timeout=20)
    assert process.returncode == 1 and message.startswith("superseded: ") and "a later job" in message
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "retry"
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_job_that_was_given_up_but_finishes_first_is_replaced_by_its_retry(tmp_path):
    path = tmp_path / "x"
    process = ghost(path)
    process.communicate("go\ngo\n", timeout=20)
    assert process.returncode == 0 and path.read_text() == "ghost"
    claim(path)
    write(path, "file", "retry")
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "retry"


def test_the_earlier_of_two_jobs_is_refused_even_while_the_later_one_is_at_work(tmp_path):
    path = tmp_path / "x"
    process = ghost(path)
    claim(path)
    _, message = process.communicate("go\ngo\n", timeout=20)
    assert process.returncode == 1 and "superseded" in message
    assert not path.exists()
    write(path, "file", "retry")
    assert path.read_text() == "retry"


def test_a_claim_covers_its_own_file_alone(tmp_path):
    others = [tmp_path / name for name in (".step30.json.h.1.tmp", ".step3.parquet.h.1.claim", "step3.json")]
    for other in others:
        other.write_text("")
    claim(tmp_path / "step3.json")
    assert all(other.exists() for other in others)
    atomic._release()
    assert sorted(tmp_path.iterdir()) == sorted(others)
    write(tmp_path / "step3.json", "file", "unclaimed")  # as ever


def test_a_job_that_fails_takes_its_claim_along(tmp_path):
    code = "import sys; from bitlaw.runtime.atomic import claim; claim(sys.argv[1]); print(1, flush=True); 1 / 0"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stdout == "1\n" and list(tmp_path.iterdir()) == []


def test_two_files_of_one_job_change_hands_together(tmp_path):
    """What the retry has not written yet the ghost must not write either: no pair of two jobs."""
    table, about = tmp_path / "x.parquet", tmp_path / "x.json"
    claim(table, about)
    write(table, "file", "first")
    (tmp_path / ".x.json.elsewhere.1.claim").touch()  # the retry on another node: its claims are there,
    atomic._claims[about].unlink()  # ours is not any more
    with pytest.raises(Superseded):
        write(about, "file", "first")
    assert not about.exists()
    atomic._release()
