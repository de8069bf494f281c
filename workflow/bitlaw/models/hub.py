"""Bring one revision of a model on the Hugging Face Hub to a folder in the layout that `checkpoint` reads.

A revision is a name whose commit may change. The first fetch keeps the commit in the file PINS/<repository>/<revision>,
which outlives the folder; a later fetch that finds another commit refuses. Files come through huggingface_hub's cache
(HF_HOME), with its tokens, its offline mode and its resuming; only configuration, tokenizer and weights are asked for,
never code.
"""

import json
import logging
import os
import pickle
import shutil
import zipfile
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

from bitlaw import InputError
from bitlaw.data.hub_errors import explained
from bitlaw.data.network import reason
from bitlaw.models import checkpoint
from bitlaw.runtime.atomic import replacing_folder, write_text
from bitlaw.runtime.hashing import digest

log = logging.getLogger("bitlaw")

PINS = Path("data/commits")
TRIES = 3  # of one file whose connection is reset; after other cuts the client itself goes on where it stopped


def fetch_model(repository, revision, folder, tokenizer, commit=None, pins=PINS):
    """Make `folder` (config.json, *.safetensors, tokenizer.json if there is one, source.json); return source.json.

    tokenizer: path of the tokenizer.json that the study uses with this model, or None; the model's own must not differ
    in its vocabulary. commit: take this one, whatever the revision points to now. source.json holds repository,
    revision, commit, files (path, bytes, sha256, as fetched), weights_sha256 and the counts of parameters. Raises
    InputError, one line with the remedy, when anything cannot be had, is not what it was, or is what another step is.
    """
    folder = Path(folder)
    commit = resolve(repository, revision, commit, pins)
    fetched = {"config.json": _need(repository, revision, commit, "config.json")}
    weights = _weights(repository, revision, commit)
    own = _get(repository, revision, commit, "tokenizer.json")
    if own:
        if tokenizer is not None:
            _same_vocabulary(own, tokenizer, repository)
        fetched["tokenizer.json"] = own
    with replacing_folder(folder) as new:
        for name, path in fetched.items():
            shutil.copyfile(path, new / name)
        _place(weights, new, repository)
        record = _record(repository, revision, commit, fetched | weights) | checkpoint.describe(new)
        _refuse_twin(folder, record)
        (new / "source.json").write_text(json.dumps(record, indent=1) + "\n")
    _pin(repository, revision, commit, pins)
    return record


def fetch_tokenizer(repository, revision, folder, commit=None, pins=PINS):
    """Make `folder` (tokenizer.json and source.json), as `fetch_model` does; return source.json."""
    commit = resolve(repository, revision, commit, pins)
    path = _need(repository, revision, commit, "tokenizer.json")
    record = _record(repository, revision, commit, {"tokenizer.json": path})
    with replacing_folder(folder) as new:
        shutil.copyfile(path, new / "tokenizer.json")
        (new / "source.json").write_text(json.dumps(record, indent=1) + "\n")
    _pin(repository, revision, commit, pins)
    return record


def resolve(repository, revision, commit, pins):
    """The commit to fetch: `commit` if given, else what `revision` points to, which must be what it was before."""
    if commit:
        return commit
    pin = Path(pins) / repository / revision
    before = pin.read_text().strip() if pin.exists() else None
    if before and constants.is_offline_mode():
        return before
    with explained(repository, revision):
        now = HfApi().resolve_revision(repository, revision=revision).resolved
    if before not in (None, now):
        raise InputError(
            f"{repository} {revision}: now commit {now}, before it was {before}, as {pin} says. To keep the one from "
            f"before, give the model `commits: {{{revision}: {before}}}` in the configuration; to take the new one, "
            "delete that file"
        )
    return now


def _pin(repository, revision, commit, pins):
    """Keep the first commit fetched of a revision."""
    pin = Path(pins) / repository / revision
    if not pin.exists():
        write_text(pin, f"{commit}\n")


def _get(repository, revision, commit, name):
    """Path in the cache of one file of the commit; None if the commit has no file of that name."""
    with explained(repository, revision, name):
        for left in reversed(range(TRIES)):
            try:
                return Path(hf_hub_download(repository, name, revision=commit))
            except RemoteEntryNotFoundError:
                return None
            except LocalEntryNotFoundError:
                if constants.is_offline_mode():
                    return None
                raise
            except HTTPError as error:
                if hasattr(error, "response") or not left:
                    raise
                log.warning("%s %s: %s; trying again", repository, name, reason(error))


def _need(repository, revision, commit, name):
    path = _get(repository, revision, commit, name)
    if path is None:
        raise InputError(
            f"{repository} {revision}: has no {name}{_where()}; choose a repository or `revision` that has"
        )
    return path


def _where():
    offline = constants.is_offline_mode()
    return f" in the cache {constants.HF_HUB_CACHE} (HF_HUB_OFFLINE is set)" if offline else ""


def _weights(repository, revision, commit):
    """{name: path} of the weights: safetensors if there are any, else pickles; an index where they are in parts."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if path := _get(repository, revision, commit, name):
            return {name: path}
        index = f"{name}.index.json"
        if path := _get(repository, revision, commit, index):
            parts = sorted(set(json.loads(path.read_text())["weight_map"].values()))
            if wrong := [part for part in parts if "/" in part or Path(part).suffix != Path(name).suffix]:
                raise InputError(f"{repository} {revision}: {index} names {wrong[0]!r}; choose another `revision`")
            return {index: path} | {part: _need(repository, revision, commit, part) for part in parts}
    raise InputError(
        f"{repository} {revision}: has neither model.safetensors nor pytorch_model.bin{_where()}; "
        "choose a repository or `revision` that has weights"
    )


def _place(weights, new, repository):
    """Put the weights into the folder `new`: safetensors as they are, pickles converted."""
    pickles = [path for name, path in weights.items() if name.endswith(".bin")]
    if pickles:
        _convert(pickles, new, repository)
        return
    for name, path in weights.items():
        try:
            os.link(path.resolve(), new / name)  # no second copy on the disk
        except OSError:  # the cache is on another file system
            shutil.copyfile(path, new / name)


def _convert(pickles, new, repository):
    """Write the tensors of torch pickles as safetensors. Nothing but tensors is unpickled, no code runs."""
    import torch  # seconds to import: only those pay who convert
    from huggingface_hub import save_torch_state_dict

    tensors = {}
    for path in pickles:
        try:
            # a file of torch older than 1.6 is no zip and cannot be mapped
            tensors |= torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError) as error:
            raise InputError(
                f"{repository}: {path.name} holds something else than weights and is not opened ({_first(error)}); "
                "choose a revision with safetensors"
            ) from error
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise InputError(f"{repository}: {pickles[0].name} is no dict of tensors; choose a revision with safetensors")
    save_torch_state_dict(tensors, new)


def _record(repository, revision, commit, paths):
    """The part of source.json that says where the files came from, once they are what the Hub says they are."""
    files = []
    for name, path in sorted(paths.items()):
        sha256, blob = digest(path), Path(os.readlink(path)) if path.is_symlink() else path
        if len(blob.name) == 64 and blob.name != sha256:  # the cache calls a large file by the sha256 the Hub told
            raise InputError(f"{path}: has sha256 {sha256} where {blob.name} is expected; delete it and run again")
        files.append({"path": name, "bytes": path.stat().st_size, "sha256": sha256})
    return {"repository": repository, "revision": revision, "commit": commit, "files": files}


def _refuse_twin(folder, record):
    """Raise InputError if another step of the model has the same weights: one of the two is not what it says."""
    for path in folder.parent.glob("[!.]*/source.json"):  # a hidden one is being written by another job
        other = json.loads(path.read_text())
        if path.parent != folder and other.get("weights_sha256") == record["weights_sha256"]:
            raise InputError(
                f"{record['repository']} {record['revision']} (commit {record['commit']}) has the same weights as "
                f"{other['revision']} (commit {other['commit']}): one of the two is mislabelled; drop one from `steps`"
            )


def _same_vocabulary(own, tokenizer, repository):
    ours, theirs = (json.loads(Path(path).read_text())["model"] for path in (tokenizer, own))
    if any(ours.get(key) != theirs.get(key) for key in ("type", "vocab", "merges")):
        raise InputError(f"{repository}: its own tokenizer.json has another vocabulary than {tokenizer}; give its own")


def _first(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
