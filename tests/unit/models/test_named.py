"""What a person may name as a model: a folder, a GGUF file, a repository at a revision; all else is refused."""

import subprocess
import sys

import pytest

from bitlaw import InputError
from bitlaw.models import hub, named
from gguf_files import llama, vocabulary_of, write
from repository import ROOT

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/bitlaw"


@pytest.fixture
def gguf(tokenizer, tmp_path):
    vocabulary = vocabulary_of(tokenizer)
    return write(tmp_path / "raw", llama(vocabulary), vocabulary) / "tiny.gguf"


def test_a_folder_is_itself(neox_folder):
    assert named.folder(neox_folder) == neox_folder and named.folder(str(neox_folder)) == neox_folder


@pytest.mark.parametrize("name", ["nowhere", "owner/name", "owner/name@", "a/b/c@main", "@main"])
def test_what_names_nothing_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no folder or GGUF file of that name; .* owner/name@main") as refusal:
        named.folder(name)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x08" * 99)
    with pytest.raises(InputError, match=r"model\.safetensors: not a GGUF file; give one, or a folder with"):
        named.folder(tmp_path / "model.safetensors")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(InputError, match=r"cut\.gguf: not a readable GGUF file"):
        named.folder(tmp_path / "cut.gguf")


def test_a_gguf_file_is_converted_once(gguf, cache):
    made = named.folder(gguf)
    assert cache in made.parents
    times = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in times}
    assert named.folder(gguf) == made
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == times


def test_a_repository_is_fetched_once_and_pinned(monkeypatch, cache):
    calls = []

    def fetch(repository, revision, folder, tokenizer, commit, pins):
        calls.append((repository, revision, commit))
        folder.mkdir(parents=True)
        (folder / "source.json").write_text("{}")
        hub._pin(repository, revision, commit, pins)

    monkeypatch.setattr(hub, "resolve", lambda repository, revision, commit, pins: SHA)
    monkeypatch.setattr(hub, "fetch_model", fetch)
    made = named.folder("owner/name@main")
    assert made == cache / "hub/owner/name" / SHA / "checkpoint" and calls == [("owner/name", "main", SHA)]
    monkeypatch.setattr(hub, "resolve", None)  # no more network
    assert named.folder("owner/name@main") == made and len(calls) == 1


def test_a_gguf_file_codes_and_decodes_from_the_command_line(tmp_path, gguf):
    (tmp_path / "text").write_bytes(b"Alice was beginning\x04 to get very tired \xff")

    def bitlaw(*arguments):
        command = [sys.executable, "-m", "bitlaw", *arguments, "--model", gguf]
        ran = subprocess.run(command, cwd=ROOT / "workflow", capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr

    bitlaw("compress", tmp_path / "text")
    bitlaw("decompress", tmp_path / "text.blaw", "--output", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "text").read_bytes()
