"""The first items of a data set on the Hub, streamed until they hold the chunks that are wanted, as encoded files.

A source is a dict as in the configuration: dataset (owner/name), split, column, and optionally config and revision.
What is wanted is a modality's settings as `shards.cut` takes them, and chunk_bytes: the stream ends with the item
that completes the chunks. Bytes are written as they are stored; only their sizes are looked at here.
"""

import io
import logging
import multiprocessing
import re
from contextlib import closing
from pathlib import PurePosixPath

from bitlaw import InputError
from bitlaw.data.chunking import PATCH_COLUMNS, PATCH_ROWS, resampled_length
from bitlaw.data.network import reason
from bitlaw.runtime.hashing import digest
from bitlaw.runtime.logs import progress

log = logging.getLogger("bitlaw")

TIMEOUT = 10  # seconds that the Hub has for its first answer


def take(name, source, wanted, folder):
    """Write the items to `folder`, named by their index in the stream: (place, entries) for source.json.

    The place says to which commit the revision was resolved. Items that give no chunk (images that are too small) are
    kept, so that the files are the stream without a gap; `shards.cut` leaves them out and counts them.
    Raises InputError when the data set cannot be read or ends too early.
    """
    place = {"dataset": source["dataset"], "config": source.get("config"), "split": source["split"]}
    place |= {"column": source["column"], "revision": source.get("revision", "main")}
    try:
        with closing(_stream(place, wanted["cut"])) as items:
            place["commit"] = next(items)
            log.info("%s: %s is at commit %s", name, place["dataset"], place["commit"])
            return place, _write(name, items, place, wanted, folder)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _stream(place, cut):
    """Yield the commit, then the column's values in the order of the stream: dicts with bytes and path.

    They come from a process of its own that is killed at the end: Arrow's scan of a Parquet file, left half-way, may
    keep a process from ending or abort it (issues 45214 and 50482 of apache/arrow).
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(ours, theirs, place, cut), daemon=True)
    process.start()
    theirs.close()
    try:
        while (message := ours.recv())[0] != "end":
            if message[0] == "error":
                raise InputError(message[1])
            yield message[1]
    except EOFError as error:
        raise InputError(f"the process that streams {place['dataset']} ended before its time; run again") from error
    finally:
        process.kill()
        process.join()
        ours.close()


def _send(ours, theirs, place, cut):
    """In the process of its own: send ("item", value) for each value, at last ("end", None) or ("error", line)."""
    import datasets  # here: this takes seconds, and other sources do without
    from huggingface_hub.errors import HTTPError  # of its http client, broken connections included

    ours.close()  # so that sending fails once the reader is gone
    try:
        place["commit"] = _commit(place)
        theirs.send(("item", place["commit"]))
        for item in _items(place, cut):
            theirs.send(("item", item))
        theirs.send(("end", None))
    except BrokenPipeError:
        raise SystemExit(1) from None
    except InputError as error:
        theirs.send(("error", str(error)))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, HTTPError) as error:
        theirs.send(("error", _remedy(error, place)))


def _commit(place):
    """The commit that the revision stands for; on the way, whether this account may read the data at all."""
    from huggingface_hub import HfApi, constants

    from bitlaw.data.hub_errors import explained

    if constants.is_offline_mode():
        raise InputError(
            f"HF_HUB_OFFLINE is set but {place['dataset']} is on the Hub; unset it, or take a local folder"
        )
    with explained(f"datasets/{place['dataset']}", place["revision"]):
        commit = HfApi().dataset_info(place["dataset"], revision=place["revision"], timeout=TIMEOUT).sha
        HfApi().auth_check(place["dataset"], repo_type="dataset")  # what describes a gated data set is public
    return commit


def _items(place, cut):
    """Yield the column's values in the order of the stream."""
    import datasets

    # The Hub's client tries a request six times within half a minute, or waits as long as the Hub tells it to; twenty
    # times that, with a minute in between, would look like standing still.
    settings = datasets.config
    settings.STREAMING_READ_MAX_RETRIES = settings.STREAMING_OPEN_MAX_RETRIES = 1
    settings.STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL = settings.STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL = 0
    settings.STREAMING_READ_RETRY_INTERVAL = settings.STREAMING_OPEN_RETRY_INTERVAL = 0
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
    report = progress(f"stream {name}", need, "MB in chunks", 1e6)
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
        report(have)
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
    patches = (height // PATCH_ROWS) * (width // PATCH_COLUMNS)
    return wanted["chunk_bytes"] * (min(patches, 1) if wanted["patches"] == "crop" else patches)


def _speech_bytes(data, wanted, what):
    """Bytes of an utterance's samples, converted to the rate where that is allowed."""
    import soundfile

    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise InputError(f"{what} cannot be read as sound ({reason(error)}); take another revision") from error
    return 2 * resampled_length(info.frames, info.samplerate, wanted["rate"])


def _remedy(error, place):
    """An error of the stream in one line that says what to do."""
    from huggingface_hub.errors import HTTPError

    from bitlaw.data.hub_errors import remedy

    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    for link in chain:
        if isinstance(link, HTTPError):
            return remedy(link, f"datasets/{place['dataset']}")
    return f"{place['dataset']} cannot be streamed ({reason(error)}); correct `config`, `split` or `revision`"
