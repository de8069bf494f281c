"""Replacing files and folders: all or nothing, also when the writer is killed."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw import InputError
from bitlaw.runtime import atomic
from bitlaw.runtime.atomic import Superseded, claim, replacing, replacing_folder

WRITER = """
import sys, time
from bitlaw.runtime.atomic import replacing, replacing_folder

with (replacing_folder if sys.argv[2] == "folder" else replacing)(sys.argv[1]) as new:
    if sys.argv[2] == "folder":
        (new / "part").write_text("half")
    else:
        new.write_text("half")
    print("written", flush=True)
    time.sleep(60)
"""


WRITERS = {"file": replacing, "folder": replacing_folder}


def write(path, kind, text):
    with WRITERS[kind](path) as new:
        (new / "whole" if kind == "folder" else new).write_text(text)


def content(path, kind):
    if kind == "file":
        return path.read_text()
    return {p.name: p.read_text() for p in path.iterdir() if p.name != atomic.WRITTEN}


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
    with pytest.raises(KeyboardInterrupt), WRITERS[kind](path) as new:
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


# --- what may be replaced -----------------------------------------------------------------------------------------

# What can stand at a path before a file or folder is written there. Those with "link" are symbolic links.
PLAIN = ("missing", "file", "read-only file", "empty folder", "folder", "our folder", "our folder and more", "fifo",
         "socket")  # fmt: skip
KINDS = [*PLAIN, *(f"link to {kind}" for kind in PLAIN), "link without folder", "link to itself", "parent missing",
         "parent a file"]  # fmt: skip
REPLACED = {
    "file": {"missing", "file", "link to missing", "link to file", "parent missing"},
    "folder": {"missing", "empty folder", "our folder", "link to missing", "link to empty folder", "link to our folder",
               "parent missing"},
}  # fmt: skip


@contextmanager
def standing(root, name, kind):
    """In `root`, put `kind` at the path that is yielded, and beside it a file that nobody may touch."""
    (root / "bystander").write_text("mine")
    path = root / name
    if kind == "parent missing":
        path = root / "new" / "newer" / name
    elif kind == "parent a file":
        path.write_text("mine")
        path /= "below"
    elif kind == "link without folder":
        path.symlink_to(root / "nowhere" / "x")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind.startswith("link to "):
        (root / "far").mkdir()
        path.symlink_to(Path("far") / "target")
        make(root / "far" / "target", kind.removeprefix("link to "))
    else:
        make(path, kind)
    yield path


def make(path, kind):
    if kind in ("file", "read-only file"):
        path.write_text("mine")
        path.chmod(0o444 if kind == "read-only file" else 0o640)
    elif kind.startswith("our folder"):
        write(path, "folder", "old")
        if kind == "our folder and more":
            (path / "deep").mkdir()
            (path / "deep" / "note").write_text("mine")
    elif kind in ("folder", "empty folder"):
        path.mkdir()
        if kind == "folder":
            (path / "note").write_text("mine")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        # bound by a short name, as a socket's path holds a hundred bytes at most
        with socket.socket(socket.AF_UNIX) as bound, tempfile.TemporaryDirectory() as short:
            bound.bind(f"{short}/s")
            os.rename(f"{short}/s", path)


def tree(root):
    """{path: what is there} of all below `root`, links not followed."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        holds = None
        if path.is_symlink():
            holds = os.readlink(path)
        elif path.is_file():
            holds = path.read_bytes()
        found[str(path.relative_to(root))] = (stat.S_IFMT(about.st_mode), about.st_ino, holds)
    return found


# names with what shells, globs and the temporaries' own names give a meaning to
names = st.text(st.sampled_from("ab.*?[]~ -#é\\'\"$"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..", "bystander", "far", "new", "nowhere")
)


@settings(max_examples=400, deadline=None)
@given(name=names, kind=st.sampled_from(KINDS), what=st.sampled_from(["file", "folder"]), fails=st.booleans())
def test_what_was_there_is_replaced_only_if_it_may_be(name, kind, what, fails):
    with tempfile.TemporaryDirectory() as folder, standing(root := Path(folder), name, kind) as path:
        check_one(root, path, kind, what, fails)


def check_one(root, path, kind, what, fails):
    before = tree(root)
    if kind not in REPLACED[what]:
        with pytest.raises(InputError) as refused:
            write(path, what, "new")
        assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)
        assert tree(root) == before
        return
    if fails:
        with pytest.raises(ZeroDivisionError), WRITERS[what](path) as new:
            (new / "half" if what == "folder" else new).write_text("half")
            raise ZeroDivisionError
        after = {key: value for key, value in tree(root).items() if key not in ("new", "new/newer")}
        assert after == before
        return
    write(path, what, "new")
    target = Path(os.path.realpath(path))
    assert content(path, what) == ({"whole": "new"} if what == "folder" else "new")
    assert path.is_symlink() == kind.startswith("link") and (target == path) != path.is_symlink()
    within = {str(target.relative_to(root))} | {str(p.relative_to(root)) for p in target.rglob("*")}
    parents = {"new", "new/newer"} if kind == "parent missing" else set()
    after = tree(root)
    assert set(after) == {key for key in before if not (root / key).is_relative_to(target)} | within | parents
    assert all(after[key] == before[key] for key in set(before) - within)


def test_devices_are_refused(tmp_path):
    device = tmp_path / "device"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as /dev/null
    except PermissionError:
        pytest.skip("making a device needs root")
    for kind in WRITERS:
        with pytest.raises(InputError, match="device: is a device"):
            write(device, kind, "new")
    assert stat.S_ISCHR(device.stat().st_mode) and list(tmp_path.iterdir()) == [device]


def test_a_link_to_an_open_file_without_a_name_is_refused(tmp_path):
    """As /dev/stdout is when the output goes to a pipe or to a file that was deleted since."""
    (tmp_path / "deleted").write_text("old")
    reading, writing = os.pipe()
    with open(tmp_path / "deleted") as file:
        (tmp_path / "deleted").unlink()
        for number in (file.fileno(), writing):
            (tmp_path / f"link{number}").symlink_to(f"/proc/self/fd/{number}")
            with pytest.raises(InputError, match="link"):
                write(tmp_path / f"link{number}", "file", "new")
    os.close(reading)
    os.close(writing)
    assert all(path.is_symlink() for path in tmp_path.iterdir())


def test_what_came_to_be_there_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(InputError, match="is a named pipe"), replacing(path) as new:
        new.write_text("new")
        os.mkfifo(path)
    assert [stat.S_ISFIFO(p.stat().st_mode) for p in tmp_path.iterdir()] == [True]
    path.unlink()
    with pytest.raises(InputError, match="holds 'note'"), replacing_folder(path) as new:
        (new / "whole").write_text("new")
        path.mkdir()
        (path / "note").write_text("mine")
    assert content(path, "folder") == {"note": "mine"} and list(tmp_path.iterdir()) == [path]


def test_a_folder_whose_replacement_fails_is_put_back(tmp_path, monkeypatch):
    path, rename = tmp_path / "x", os.replace
    write(path, "folder", "old")

    def failing(source, target):
        if Path(target) == path:
            raise OSError("disk on fire")
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="on fire"):
        write(path, "folder", "new")
    assert content(path, "folder") == {"whole": "old"} and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["{", "3", "folder"])
def test_a_folder_whose_list_cannot_be_read_is_left_alone(tmp_path, damage):
    path = tmp_path / "x"
    write(path, "folder", "old")
    (path / atomic.WRITTEN).unlink()
    (path / atomic.WRITTEN).mkdir() if damage == "folder" else (path / atomic.WRITTEN).write_text(damage)
    with pytest.raises(InputError, match="cannot be read"):
        write(path, "folder", "new")
    assert (path / "whole").read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_moved_elsewhere_is_still_known(tmp_path):
    write(tmp_path / "x", "folder", "old")
    shutil.copytree(tmp_path / "x", tmp_path / "y")
    write(tmp_path / "y", "folder", "new")
    assert content(tmp_path / "y", "folder") == {"whole": "new"}


def test_text_is_written_as_utf8(tmp_path):
    atomic.write_text(tmp_path / "a" / "x", "α\n")
    assert (tmp_path / "a" / "x").read_bytes() == b"\xce\xb1\n"


def test_a_claim_covers_what_a_link_leads_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "x")
    claim(tmp_path / "link")
    (claimed,) = [p for p in tmp_path.iterdir() if p.suffix == ".claim"]
    claimed.unlink()  # a later job's doing
    with pytest.raises(Superseded):
        write(tmp_path / "link", "file", "late")
    assert not (tmp_path / "x").exists()
    atomic._release()


def test_a_claimed_folder_is_not_replaced_by_the_job_that_lost_it(tmp_path):
    path = tmp_path / "x"
    write(path, "folder", "first")
    claim(path)
    atomic._claims[path].unlink()
    with pytest.raises(Superseded):
        write(path, "folder", "late")
    assert content(path, "folder") == {"whole": "first"} and list(tmp_path.iterdir()) == [path]
    atomic._release()
