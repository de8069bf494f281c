"""The first items of a data set on the Hub, streamed until they hold the chunks that are wanted, as encoded files.

A source is a dict as in the configuration: dataset (owner/name), split, column, and optionally config and revision.
What is wanted is a modality's settings as `shards.cut` takes them, and chunk_bytes: the stream ends with the item
that completes the chunks. Bytes are written as they are stored; only their sizes are looked at here.
"""

import io
import logging
import re
from pathlib import PurePosixPath

from bitlaw import InputError
from bitlaw.download import digest, reason
from bitlaw.progress import progress
from bitlaw.shards import COLUMNS, ROWS

log = logging.getLogger("bitlaw")

TIMEOUT = 10  # seconds that the Hub has for its first answer


def take(name, source, wanted, folder):
    """Write the items to `folder`, named by their index in the stream: (place, entries) for source.json.

    The place says to which commit the revision was resolved. Items that give no chunk (images that are too small) are
    kept, so that the files are the stream without a gap; `shards.cut` leaves them out and counts them.
    Raises InputError when the data set cannot be read or ends too early.
    """
    import datasets  # here: this takes seconds, and other sources do without
    from huggingface_hub.errors import HTTPError  # of its http client, broken connections included

    place = {"dataset": source["dataset"], "config": source.get("config"), "split": source["split"]}
    place |= {"column": source["column"], "revision": source.get("revision", "main")}
    try:
        place["commit"] = _commit(place)
        log.info("%s: %s is at commit %s", name, place["dataset"], place["commit"])
        return place, _write(name, _items(place, wanted["cut"]), place, wanted, folder)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, HTTPError) as error:
        raise InputError(f"{name}: {_remedy(error, place)}") from error


def _commit(place):
    """The commit that the revision stands for; on the way, whether this account may read the data at all."""
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(place["dataset"], revision=place["revision"], timeout=TIMEOUT).sha
    HfApi().auth_check(place["dataset"], repo_type="dataset")  # what describes a gated data set is public
    return commit


def _items(place, cut):
    """Yield the column's values in the order of the stream: dicts with bytes and path."""
    import datasets

    # The Hub's client tries a request six times within half a minute; twenty times that would look like standing still.
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    datasets.disable_progress_bars()
    column, kind = place["column"], {"image": datasets.Image, "speech": datasets.Audio}[cut]
    stream = datasets.load_dataset(
        f"hf://datasets/{place['dataset']}",  # so written, no local folder is taken for it
        place["config"],
        split=place["split"],
        revision=place["commit"],
        streaming=True,
    )
    features = stream.features or {}
    if column not in features:
        raise InputError(f"{label(place)} has no column {column!r}; set `column` to one of: {', '.join(features)}")
    if not isinstance(features[column], kind):
        fit = [other for other, feature in features.items() if isinstance(feature, kind)]
        raise InputError(
            f"column {column!r} of {label(place)} is no {kind.__name__}, which `cut: {cut}` needs; "
            f"columns that are: {', '.join(fit) or 'none'}"
        )
    for row in stream.select_columns([column]).cast_column(column, kind(decode=False)):
        yield row[column]


def _write(name, items, place, wanted, folder):
    """Write items until their chunks are enough: the entries for source.json."""
    measure = {"image": _image_bytes, "speech": _speech_bytes}[wanted["cut"]]
    entries, have, need = [], 0, wanted["chunks"] * wanted["chunk_bytes"]
    at = progress(f"stream {name}", need, "MB in chunks", 1e6)
    for index, item in enumerate(items):
        what = f"item {index} of {label(place)}"
        if not item or not item.get("bytes"):
            raise InputError(f"{what} has no bytes; take another data set or column")
        have += measure(item["bytes"], wanted, what)
        suffix = PurePosixPath(item.get("path") or "").suffix  # the only part of a foreign name that is used
        path = folder / f"{index:08d}{suffix if re.fullmatch('[.][A-Za-z0-9]{1,8}', suffix) else ''}"
        path.write_bytes(item["bytes"])
        entry = {"path": path.name, "bytes": len(item["bytes"]), "sha256": digest(path), "member": item.get("path")}
        entries.append({**entry, "place": label(place), "index": index})
        at(have)
        if have >= need:
            log.info("%s: the first %d items of %s", name, len(entries), label(place))
            return entries
    raise InputError(
        f"{label(place)} has {len(entries)} items, which give {have // wanted['chunk_bytes']} chunks where "
        f"{wanted['chunks']} are asked for; lower `chunks` or take a larger split"
    )


def label(place):
    """How a place is named in messages and in source.json."""
    config = f"{place['config']}, " if place["config"] else ""
    return f"{place['dataset']} ({config}{place['split']}) at {place['commit'][:12]}"


def _image_bytes(data, wanted, what):
    """Bytes of the patches that `shards.cut` takes from an image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{what} cannot be read as an image ({reason(error)}); take another revision") from error
    patches = (height // ROWS) * (width // COLUMNS)
    return wanted["chunk_bytes"] * (min(patches, 1) if wanted["patches"] == "crop" else patches)


def _speech_bytes(data, wanted, what):
    """Bytes of an utterance's samples, converted to the rate where that is allowed."""
    import soundfile

    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise InputError(f"{what} cannot be read as sound ({reason(error)}); take another revision") from error
    return 2 * -(-info.frames * wanted["rate"] // info.samplerate)


def _remedy(error, place):
    """An error of the Hub's libraries in one line that says what to do."""
    from huggingface_hub import constants, errors, get_token

    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)

    def found(*kinds):
        return next((e for e in chain if isinstance(e, kinds)), None)

    dataset, page = place["dataset"], f"{constants.ENDPOINT}/datasets/{place['dataset']}"
    answer = found(errors.HfHubHTTPError)
    status = answer.response.status_code if answer is not None else None
    if found(errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set but {dataset} is on the Hub; unset it, or take a source with `folder`"
    if status == 401 and get_token():
        return (
            f"the Hub refuses the access token of this machine; set HF_TOKEN to a valid one from "
            f"{constants.ENDPOINT}/settings/tokens"
        )
    if found(errors.GatedRepoError) and not get_token():
        return (
            f"{dataset} is gated and no access token is set; accept the terms at {page}, "
            f"then set HF_TOKEN to a token from {constants.ENDPOINT}/settings/tokens"
        )
    if found(errors.GatedRepoError):
        return (
            f"{dataset} is gated and the account of this access token has no access; accept the terms at {page} "
            f"(a fine-grained token must also be allowed to read public gated repositories), then run again"
        )
    if found(errors.RevisionNotFoundError):
        return f"{dataset} has no revision {place['revision']!r}; correct `revision` or leave it out ({page}/tree/main)"
    if found(errors.RepositoryNotFoundError, errors.HFValidationError):
        return f"the Hub has no data set {dataset!r}, or it is private; correct `dataset` or set HF_TOKEN"
    if status == 429:
        return (
            "the Hub limits the requests of this machine (429); wait five minutes, or set HF_TOKEN for a higher limit"
        )
    if status is not None and status >= 500:
        return f"the Hub fails ({status}); run again later, or take a source with `folder`"
    if status is None and (gone := found(errors.HTTPError, ConnectionError, TimeoutError)):
        return (
            f"the Hub at {constants.ENDPOINT} cannot be reached ({reason(gone)}); "
            f"check the network and run again, or take a source with `folder`"
        )
    return f"{dataset} cannot be streamed ({reason(error)}); correct `config`, `split` or `revision`"
