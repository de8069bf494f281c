"""Checkpoints from the Hub: the real huggingface_hub client against a loopback server that answers like the Hub."""

import json
import pickle
import shutil
import time

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save

from bitlaw import InputError
from bitlaw.models import checkpoint, hub, named
from hub_server import HubServer
from tiny_models import neox_checkpoint

REPOSITORY = "EleutherAI/pythia-70m"
STEPS = {"step1000": 11, "step8000": 12}  # revision: seed
MARK = "BITLAW_TEST_MARK"


@pytest.fixture(scope="module")
def made(tokenizer, tmp_path_factory):
    """Revision -> {file: bytes} of tiny checkpoints in Pythia's format, with files that nobody should ask for."""
    found = {}
    for revision, seed in STEPS.items():
        folder = neox_checkpoint(tokenizer, tmp_path_factory.mktemp(revision), seed)
        found[revision] = {path.name: path.read_bytes() for path in folder.iterdir()}
        found[revision] |= {"README.md": b"# Pythia", "modeling.py": b"raise SystemExit", "flax_model.msgpack": b"x"}
    return found


def without_weights(files):
    return {name: data for name, data in files.items() if name != "model.safetensors"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub, and the client pointed to it: constants are what the client makes of its environment at import."""
    with HubServer() as running:
        point_to(monkeypatch, running.base)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield running
        huggingface_hub.close_session()


def point_to(monkeypatch, base):
    monkeypatch.setattr(constants, "ENDPOINT", base)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", base + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def fetch(tmp_path, neox_folder):
    """`hub.fetch_model` into tmp_path: (source.json, folder)."""

    def fetch(revision="step1000", repository=REPOSITORY, tokenizer=neox_folder / "tokenizer.json", commit=None):
        folder = tmp_path / "models" / "pythia-70m" / revision
        return hub.fetch_model(repository, revision, folder, tokenizer, commit, tmp_path / "commits"), folder

    return fetch


def refusal(call, *arguments, **options):
    """The line of the InputError that the call raises, and the seconds it took."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line, time.monotonic() - started


def test_a_model_is_fetched_with_commit_hashes_and_counts_and_nothing_else(server, fetch, made, neox_folder):
    commit = server.add(REPOSITORY, made["step1000"], "step1000")
    record, folder = fetch()
    wanted = ["config.json", "model.safetensors", "source.json", "tokenizer.json"]
    assert sorted(path.name for path in folder.glob("[!.]*")) == wanted
    assert (folder / "model.safetensors").read_bytes() == made["step1000"]["model.safetensors"]
    assert json.loads((folder / "source.json").read_text()) == record
    assert checkpoint.origin(folder) == {"repository": REPOSITORY, "revision": "step1000", "commit": commit}
    assert [entry["path"] for entry in record["files"]] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert record["weights_sha256"] == record["files"][1]["sha256"]
    same_shape = checkpoint.describe(neox_folder)
    for count in ("params_total", "params_nonembedding"):
        assert record[count] == same_shape[count]
    assert checkpoint.load(folder).vocabulary == checkpoint.load(neox_folder).vocabulary
    asked = " ".join(path for path, *_ in server.requests)
    assert not any(word in asked for word in (".py", "README", "msgpack", ".bin"))


def test_a_repository_at_a_revision_is_a_folder_of_one_commit(server, made, tmp_path, monkeypatch, neox_folder):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "made"))
    commit = server.add(REPOSITORY, made["step1000"], "main")
    folder = named.folder(f"{REPOSITORY}@main")
    assert folder == tmp_path / "made/bitlaw/hub" / REPOSITORY / commit / "checkpoint"
    assert checkpoint.load(folder).vocabulary == checkpoint.load(neox_folder).vocabulary
    server.add(REPOSITORY, made["step8000"], "main")
    server.requests.clear()
    assert named.folder(f"{REPOSITORY}@main") == folder and not server.requests  # what it was first
    line, _ = refusal(named.folder, f"{REPOSITORY}@step9")
    assert REPOSITORY in line and "step9" in line


def test_two_revisions_are_two_models(server, fetch, made):
    commits = [server.add(REPOSITORY, made[revision], revision) for revision in STEPS]
    records = [fetch(revision)[0] for revision in STEPS]
    assert [record["commit"] for record in records] == commits
    assert records[0]["weights_sha256"] != records[1]["weights_sha256"]


def as_pickle(tensors, path, **options):
    torch.save(tensors, path, **options)
    return path.read_bytes()


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights_become_safetensors_with_the_same_tensors(server, fetch, made, tmp_path, zipped):
    (tmp_path / "x.safetensors").write_bytes(made["step1000"]["model.safetensors"])
    expected = load_file(tmp_path / "x.safetensors")
    buffers = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool)}  # as Pythia's have
    data = as_pickle(expected | buffers, tmp_path / "x.bin", _use_new_zipfile_serialization=zipped)
    server.add(REPOSITORY, without_weights(made["step1000"]) | {"pytorch_model.bin": data}, "step1000")
    record, folder = fetch()
    assert [path.name for path in folder.glob("*model*")] == ["model.safetensors"]
    found = load_file(folder / "model.safetensors")
    assert set(found) == set(expected | buffers)
    assert all(torch.equal(found[name], tensor) for name, tensor in (expected | buffers).items())
    assert record["params_total"] == sum(tensor.numel() for tensor in expected.values())
    assert [entry["path"] for entry in record["files"]] == ["config.json", "pytorch_model.bin", "tokenizer.json"]
    assert fetch()[0]["weights_sha256"] == record["weights_sha256"]


def test_safetensors_are_preferred_to_pickles(server, fetch, made):
    server.add(REPOSITORY, made["step1000"] | {"pytorch_model.bin": b"not opened"}, "step1000")
    fetch()
    assert not [path for path, *_ in server.requests if path.endswith(".bin")]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_parts_are_fetched_by_their_index(server, fetch, made, tmp_path, name):
    (tmp_path / "x.safetensors").write_bytes(made["step1000"]["model.safetensors"])
    tensors = load_file(tmp_path / "x.safetensors")
    stem, _, suffix = name.partition(".")
    files, where = without_weights(made["step1000"]), {}
    for number in (1, 2):
        part = f"{stem}-0000{number}-of-00002.{suffix}"
        some = {key: tensors[key] for key in sorted(tensors)[number - 1 :: 2]}
        where |= dict.fromkeys(some, part)
        files[part] = save(some) if suffix == "safetensors" else as_pickle(some, tmp_path / part)
    files[f"{name}.index.json"] = json.dumps({"weight_map": where}).encode()
    server.add(REPOSITORY, files, "step1000")
    record, folder = fetch()
    assert record["params_total"] == sum(tensor.numel() for tensor in tensors.values())
    found = {}
    for path in checkpoint.weight_files(folder):
        found |= load_file(path)
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    checkpoint.load(folder)


def test_an_index_may_not_lead_out_of_the_repository(server, fetch, made):
    index = json.dumps({"weight_map": {"x": "../../evil.safetensors"}}).encode()
    server.add(REPOSITORY, without_weights(made["step1000"]) | {"model.safetensors.index.json": index}, "step1000")
    assert "'../../evil.safetensors'" in refusal(fetch)[0]


class Evil:
    """What an attacker would pickle: opened without care, it creates the folder that the environment names."""

    def __reduce__(self):
        return eval, (f"__import__('os').mkdir(__import__('os').environ[{MARK!r}])",)


def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(server, fetch, made, tmp_path, monkeypatch):
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    data = as_pickle({"weight": Evil()}, tmp_path / "x.bin")
    server.add(REPOSITORY, without_weights(made["step1000"]) | {"pytorch_model.bin": data}, "step1000")
    line, _ = refusal(fetch)
    assert "pytorch_model.bin" in line and "safetensors" in line
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").rglob("*.*"))
    with pytest.raises(pickle.UnpicklingError):  # the pickle is one that would run
        torch.load(tmp_path / "x.bin", weights_only=True)
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("fault", [{"cut": 70_000}, {"cut": 70_000, "reset": True}], ids=["cut", "reset"])
def test_a_broken_download_goes_on(server, fetch, made, monkeypatch, fault):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # 10 MB in the client, more than this file has
    data = made["step1000"]["model.safetensors"]
    assert len(data) > 80_000
    server.add(REPOSITORY, made["step1000"], "step1000")
    server.storage.rules[server.blob(data)] = [fault]
    _, folder = fetch()
    assert (folder / "model.safetensors").read_bytes() == data
    (_, first, _), (_, second, status) = server.storage.requests
    assert first is None
    # the client goes on by itself only where the server closed in order; after a reset it gives up and starts again
    assert (second, status) == ((None, 200) if "reset" in fault else (f"bytes={70_000 >> 14 << 14}-", 206))


def test_a_second_fetch_takes_everything_from_the_cache(server, fetch, made):
    server.add(REPOSITORY, made["step1000"], "step1000")
    first, folder = fetch()
    shared = (folder / "model.safetensors").stat().st_nlink
    assert shared > 1, "the weights take their room on the disk twice"
    server.storage.requests.clear()
    assert fetch()[0] == first
    assert server.storage.requests == []


def test_a_revision_that_moved_is_refused_even_when_the_folder_is_gone(server, fetch, made, tmp_path):
    before = server.add(REPOSITORY, made["step1000"], "step1000")
    _, folder = fetch()
    pin = tmp_path / "commits" / REPOSITORY / "step1000"
    assert pin.read_text() == f"{before}\n"
    shutil.rmtree(folder)
    now = server.add(REPOSITORY, made["step8000"], "step1000")
    line, _ = refusal(fetch)
    assert before in line and now in line and str(pin) in line and "commits:" in line
    assert not folder.exists()
    record, _ = fetch(commit=before)  # what the line says: the one from before ...
    assert record["commit"] == before
    pin.unlink()  # ... or the new one
    assert fetch()[0]["commit"] == now


def test_another_step_with_the_same_weights_is_refused(server, fetch, made):
    server.add(REPOSITORY, made["step1000"], "step1000")
    server.add(REPOSITORY, made["step1000"], "step8000")
    fetch("step1000")
    line, _ = refusal(fetch, "step8000")
    assert "same weights" in line and "step1000" in line and "step8000" in line


def test_a_step_that_another_job_is_writing_is_no_twin(server, fetch, made, tmp_path):
    server.add(REPOSITORY, made["step1000"], "step1000")
    hidden = tmp_path / "models" / "pythia-70m" / ".step8000.host.1.tmp"
    hidden.mkdir(parents=True)
    (hidden / "source.json").write_text("")
    fetch()


def test_a_tokenizer_with_another_vocabulary_is_refused(server, fetch, made, tmp_path):
    server.add(REPOSITORY, made["step1000"], "step1000")
    other = json.loads(made["step1000"]["tokenizer.json"])
    other["model"]["merges"] = other["model"]["merges"][:-1]
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "another vocabulary" in refusal(fetch, tokenizer=tmp_path / "other.json")[0]


def test_a_tokenizer_is_fetched_alone(server, made, tmp_path):
    commit = server.add(REPOSITORY, made["step1000"], "step1000")
    record = hub.fetch_tokenizer(REPOSITORY, "step1000", tmp_path / "t", pins=tmp_path / "commits")
    assert (tmp_path / "t" / "tokenizer.json").read_bytes() == made["step1000"]["tokenizer.json"]
    assert record["commit"] == commit and [entry["path"] for entry in record["files"]] == ["tokenizer.json"]
    assert server.storage.requests == []


@pytest.mark.parametrize("pinned", [True, False])
def test_offline_everything_comes_from_the_cache(server, fetch, made, monkeypatch, tmp_path, pinned):
    server.add(REPOSITORY, made["step1000"], "step1000")
    first, folder = fetch()
    shutil.rmtree(folder)
    if not pinned:
        shutil.rmtree(tmp_path / "commits")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert fetch()[0] == first
    assert server.requests == []


def test_offline_with_an_empty_cache_is_one_line(server, fetch, made, monkeypatch):
    server.add(REPOSITORY, made["step1000"], "step1000")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line, seconds = refusal(fetch)
    assert "HF_HUB_OFFLINE" in line and constants.HF_HUB_CACHE in line and seconds < 3


def test_a_file_that_is_not_what_the_hub_promised_is_refused(server, fetch, made):
    data = made["step1000"]["model.safetensors"]
    server.add(REPOSITORY, made["step1000"], "step1000")
    server.storage.files[server.blob(data)] = data[:-1] + bytes([data[-1] ^ 1])
    line, _ = refusal(fetch)
    assert "sha256" in line and "delete it" in line


@pytest.mark.parametrize(
    ("gated", "token", "repository", "revision", "words"),
    [
        (None, None, REPOSITORY, "step9", ["no such revision", "step9", "`steps`"]),
        (None, None, "EleutherAI/pythia-7m", "step1000", ["no such repository", "EleutherAI/pythia-7m", "HF_TOKEN"]),
        (None, "known", "EleutherAI/pythia-7m", "step1000", ["no such repository", "EleutherAI/pythia-7m"]),
        (None, "unknown", REPOSITORY, "step1000", ["does not know your token", "HF_TOKEN"]),
        ({"admitted"}, None, REPOSITORY, "step1000", ["terms", "accept", "/EleutherAI/pythia-70m", "HF_TOKEN"]),
        ({"admitted"}, "known", REPOSITORY, "step1000", ["not admitted", "ask for access"]),
        ({"admitted"}, "unknown", REPOSITORY, "step1000", ["does not know your token"]),
    ],
)
def test_what_may_not_be_had_is_one_line_with_the_remedy(
    server, fetch, made, monkeypatch, gated, token, repository, revision, words
):
    server.add(REPOSITORY, made["step1000"], "step1000")
    server.tokens = {"known", "admitted"}
    server.gated = {REPOSITORY: gated} if gated else {}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    line, seconds = refusal(fetch, revision, repository)
    assert all(word in line for word in words), line
    assert seconds < 3


def test_a_token_whose_owner_accepted_the_terms_opens_the_door(server, fetch, made, monkeypatch):
    server.add(REPOSITORY, made["step1000"], "step1000")
    server.tokens, server.gated = {"admitted"}, {REPOSITORY: {"admitted"}}
    monkeypatch.setenv("HF_TOKEN", "admitted")
    fetch()
    assert server.storage.count(server.blob(made["step1000"]["model.safetensors"])) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 429, "headers": {"Retry-After": "55"}}, ["too many requests", "55 seconds", "HF_TOKEN"]),
        ({"status": 403}, ["may not read", "HF_TOKEN"]),
        ({"status": 500}, ["status 500", "later"]),
    ],
)
def test_a_hub_that_refuses_is_one_line_with_the_remedy(server, fetch, made, fault, words):
    server.add(REPOSITORY, made["step1000"], "step1000")
    server.rules[server.page(REPOSITORY, "step1000")] = fault
    line, seconds = refusal(fetch)
    assert all(word in line for word in words), line
    assert seconds < 3


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_remedy(server, fetch, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9")
    line, seconds = refusal(fetch)
    assert "cannot be reached" in line and "HF_ENDPOINT" in line and seconds < 3


def test_a_file_that_fails_for_good_is_one_line_after_the_clients_own_tries(server, fetch, made, monkeypatch):
    waited = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited.append)
    commit = server.add(REPOSITORY, made["step1000"], "step1000")
    server.rules[server.file(REPOSITORY, commit, "model.safetensors")] = {"status": 503}
    line, _ = refusal(fetch)
    assert "model.safetensors" in line and "status 503" in line
    assert 0 < sum(waited) < 60


def test_a_revision_without_weights_is_one_line(server, fetch, made):
    server.add(REPOSITORY, without_weights(made["step1000"]), "step1000")
    line, _ = refusal(fetch)
    assert "neither model.safetensors nor pytorch_model.bin" in line


def test_an_interrupted_fetch_leaves_no_folder_and_no_pin(server, fetch, made, tmp_path, monkeypatch):
    server.add(REPOSITORY, made["step1000"], "step1000")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "describe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    assert not (tmp_path / "commits").exists()
