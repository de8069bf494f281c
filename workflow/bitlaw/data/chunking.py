"""Cut the files of a source into chunks of equal size: bytes as they come, grey patches of images, speech samples.

Each kind of cut is a class made of the files ({name: path}, in the order of cutting), a modality's settings (see
`shards.cut`) and the bytes in a chunk. Its objects have

    available   how many chunks the files give
    counts      {what: how much} of what was left out or converted, for the manifest
    origin(i)   where chunk i comes from, a dict for the manifest
    read(i)     the bytes of chunk i

and are cheap to make: files are opened for their sizes, their contents are read chunk by chunk. A setting out of bounds
or a file that cannot be read raises InputError.
"""

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from math import gcd

import numpy as np

from bitlaw import InputError

PATCH_ROWS, PATCH_COLUMNS = 32, 64  # pixels of an image patch; one byte each, so a patch is a chunk of 2048 bytes


def open_chunks(paths, settings, chunk_bytes):
    """The chunks of the files `paths` ({name: path}) by the kind of cut that `settings` name."""
    return _one_of(settings, "cut", KINDS_OF_CUT)(paths, settings, chunk_bytes)


def sample(chunks, settings, source):
    """Numbers of the chunks to take of `chunks`: int array [chunks], ascending. `source`: its name, for errors.

    head takes the first chunks, spread draws them by the seed without replacement, even does so in turn from every
    file, so that none gives two more than another that has chunks left; it takes no chunk that files share.
    """
    wanted, available = settings.get("chunks"), chunks.available
    if type(wanted) is not int or wanted < 1:
        raise InputError(f"chunks is {wanted!r}; set it to the number of chunks to take, at least 1")
    if wanted > available:
        raise InputError(f"{source} gives {available} chunks but {wanted} are asked for; lower `chunks` or add files")
    sampling = _one_of(settings, "sampling", ("head", "spread", "even"))
    if sampling == "head":
        return np.arange(wanted)
    random = np.random.default_rng(whole_number(settings, "seed", 0))
    if sampling == "spread":
        return np.sort(random.choice(available, size=wanted, replace=False))
    return np.sort(_in_turn(chunks, wanted, random, source))


def _in_turn(chunks, wanted, random, source):
    """`wanted` numbers of chunks that lie in one file, drawn by `random` from every file in turn."""
    by_file = {}
    for number in range(chunks.available):
        origin = chunks.origin(number)
        if "then" not in origin:
            by_file.setdefault(origin["file"], []).append(number)
    turns = random.permutation(len(by_file))
    drawn = [
        (round_, turn, number)
        for turn, numbers in zip(turns, by_file.values(), strict=True)
        for round_, number in enumerate(random.permutation(numbers))
    ]
    if wanted > len(drawn):
        raise InputError(
            f"{source} gives {len(drawn)} chunks that lie in one file but {wanted} are asked for; "
            "lower `chunks` or add files"
        )
    return [number for _, _, number in sorted(drawn)[:wanted]]


class ByteChunks:
    """The bytes of all files put together, or a range of them, cut without gaps; a rest too short is left out."""

    def __init__(self, paths, settings, chunk_bytes):
        sizes = [path.stat().st_size for path in paths.values()]
        first, last = settings.get("range") or (0, sum(sizes))
        if not 0 <= first < last <= sum(sizes):
            raise InputError(f"range is [{first}, {last}]; keep 0 <= first < last <= {sum(sizes)}, the bytes there are")
        self.names, self.paths = list(paths), list(paths.values())
        self.ends, self.first, self.size = list(accumulate(sizes)), first, chunk_bytes
        self.available, rest = divmod(last - first, chunk_bytes)
        self.counts = {"bytes_left_out_at_end": rest}

    def origin(self, index):
        return _origin(self.names, self._spans(index), "offset")

    def read(self, index):
        return b"".join(self._read(*span) for span in self._spans(index))

    def _spans(self, index):
        return _spans(self.ends, self.first + index * self.size, self.size)

    def _read(self, file, start, count):
        with open(self.paths[file], "rb") as stream:
            stream.seek(start)
            return stream.read(count)


class ImagePatches:
    """Grey patches of PATCH_ROWS × PATCH_COLUMNS pixels, row by row: all that do not overlap, or one drawn an image.

    Grey is luma as in ITU-R BT.601, as Pillow converts. Transparency is dropped, of an animation the first picture is
    taken, and pixels stay where they are stored, whatever orientation the file asks a viewer for. Images smaller than a
    patch give none. More than eight bits a channel are refused, as Pillow would cut them to eight without a word.
    """

    def __init__(self, paths, settings, chunk_bytes):
        if chunk_bytes != PATCH_ROWS * PATCH_COLUMNS:
            raise InputError(
                f"chunk_bytes is {chunk_bytes}; an image patch has {PATCH_ROWS * PATCH_COLUMNS} bytes: set it to that"
            )
        crop = _one_of(settings, "patches", ("all", "crop")) == "crop"
        draw = np.random.default_rng(whole_number(settings, "seed", 0)).integers if crop else None
        self.paths, self.patches = paths, []  # patches: (name, first row, first column)
        too_small, pixels = [], 0
        for name in paths:
            height, width = self._size(name)
            pixels += height * width
            starts = range(height - PATCH_ROWS + 1), range(width - PATCH_COLUMNS + 1)
            if not all(starts):
                too_small.append(name)
            elif crop:
                self.patches.append((name, *(int(draw(len(start))) for start in starts)))
            else:
                rows, columns = starts[0][::PATCH_ROWS], starts[1][::PATCH_COLUMNS]
                self.patches += [(name, row, column) for row in rows for column in columns]
        self.available = len(self.patches)
        outside = pixels - self.available * chunk_bytes
        self.counts = {"images": len(paths), "images_too_small": too_small, "pixels_outside_patches": outside}
        self._grey = lru_cache(maxsize=1)(self._grey)  # chunks are read in the order of the files

    def origin(self, index):
        return dict(zip(("file", "row", "column"), self.patches[index], strict=True))

    def read(self, index):
        name, row, column = self.patches[index]
        return self._grey(name)[row : row + PATCH_ROWS, column : column + PATCH_COLUMNS].tobytes()

    def _size(self, name):
        """(height, width) of an image with at most eight bits a channel."""
        mode, raw, (width, height) = self._opened(name, lambda image: (image.mode, _raw_modes(image), image.size))
        if mode.startswith(("I", "F")) or ";16" in raw:
            raise InputError(
                f"{self.paths[name]} has pixels of mode {raw or mode}, more than 8 bits; convert it to 8 bits a channel"
            )
        return height, width

    def _grey(self, name):
        """uint8 [height, width]"""
        return self._opened(name, lambda image: np.asarray(image.convert("L")))

    def _opened(self, name, take):
        from PIL import Image  # here, so that cutting text needs neither Pillow nor soundfile

        try:
            with Image.open(self.paths[name]) as image:
                return take(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{self.paths[name]} cannot be read as an image ({error}); fetch it again or remove it"
            ) from error


def _raw_modes(image):
    """How the pixels are stored, as Pillow's decoders call it ("RGB;16B"), before they become the image's mode."""
    return " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))


class SpeechChunks:
    """Samples of all files put together, int16 little-endian, cut without gaps; a rest too short is left out.

    Files of 16-bit samples, one channel and the rate asked for are taken as they are stored. Others are refused, or
    converted where the setting `convert` is true: channels averaged, resampled by a polyphase filter, rounded.
    """

    def __init__(self, paths, settings, chunk_bytes):
        if chunk_bytes % 2:
            raise InputError(f"chunk_bytes is {chunk_bytes}; a speech sample has 2 bytes, so set an even number")
        self.names, self.paths, self.rate = list(paths), list(paths.values()), whole_number(settings, "rate", 1)
        self.converted, self.lengths = set(), []  # numbers of files; samples of each file at `rate`
        for file in range(len(self.names)):
            self._inspect(file, settings.get("convert"))
        self.ends, self.samples = list(accumulate(self.lengths)), chunk_bytes // 2
        self.available, rest = divmod(2 * sum(self.lengths), chunk_bytes)
        converted = [self.names[file] for file in sorted(self.converted)]
        self.counts = {"files": len(paths), "files_converted": converted, "bytes_left_out_at_end": rest}
        self._utterance = lru_cache(maxsize=2)(self._utterance)  # a chunk may span two

    def origin(self, index):
        return _origin(self.names, self._spans(index), "sample")

    def read(self, index):
        parts = [self._utterance(file)[start : start + count] for file, start, count in self._spans(index)]
        return b"".join(part.tobytes() for part in parts)

    def _spans(self, index):
        return _spans(self.ends, index * self.samples, self.samples)

    def _inspect(self, file, convert):
        """Note the length of a file, and whether it has to be converted."""
        import soundfile

        info = self._understood(file, soundfile.info)
        stored = [
            ("rate", info.samplerate, self.rate),
            ("samples", info.subtype, "PCM_16"),
            ("channels", info.channels, 1),
        ]
        other = [f"{what} {value}, not {wanted}" for what, value, wanted in stored if value != wanted]
        if other and not convert:
            raise InputError(f"{self.paths[file]} has {'; '.join(other)}; set `convert: true` to have it converted")
        if other:
            self.converted.add(file)
        self.lengths.append(resampled_length(info.frames, info.samplerate, self.rate))

    def _utterance(self, file):
        """int16 [samples], little-endian: as stored, or converted where that was allowed."""
        import soundfile

        if file not in self.converted:
            sound, _ = self._understood(file, soundfile.read, dtype="int16")
            sound = sound.astype("<i2")
        else:
            from scipy.signal import resample_poly

            sound, stored = self._understood(file, soundfile.read, dtype="float64", always_2d=True)
            common = gcd(self.rate, stored)
            sound = resample_poly(sound.mean(axis=1), self.rate // common, stored // common)
            sound = np.clip(np.rint(sound * 32768), -32768, 32767).astype("<i2")
        if len(sound) != self.lengths[file]:
            counted = f"{len(sound)} samples where its header promises {self.lengths[file]}"
            raise InputError(f"{self.paths[file]} has {counted}; fetch it again or remove it")
        return sound

    def _understood(self, file, read, **options):
        """What soundfile's function `read` makes of a file."""
        import soundfile

        try:
            return read(self.paths[file], **options)
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{self.paths[file]} cannot be read as sound ({error}); fetch it again or remove it"
            ) from error


KINDS_OF_CUT = {"bytes": ByteChunks, "image": ImagePatches, "speech": SpeechChunks}


def whole_number(settings, key, least):
    """The setting `key`, which must be there, an int and not below `least`."""
    value = settings.get(key)
    if type(value) is not int or value < least:
        raise InputError(f"{key} is {value!r}; set it to a whole number of at least {least}")
    return value


def resampled_length(samples, stored, rate):
    """Samples that `samples` at `stored` Hz become at `rate` Hz: the quotient rounded up, as resample_poly returns."""
    return (samples * rate + stored - 1) // stored


def _spans(ends, start, count):
    """Where the units start … start + count - 1 of files put together lie: [(file number, first unit in it, units)].

    ends: for each file the units up to its end, those of the files before it included. Files without a unit of the span
    are left out.
    """
    spans, file = [], bisect_right(ends, start)
    while count:
        begin = ends[file - 1] if file else 0
        part = min(count, ends[file] - start)
        if part:
            spans.append((file, start - begin, part))
        start, count, file = start + part, count - part, file + 1
    return spans


def _origin(names, spans, unit):
    """The manifest's dict for a chunk in `spans`: its first file and unit in it; then the files that follow, if any."""
    (file, start, _), *others = spans
    then = [names[other] for other, *_ in others]
    return {"file": names[file], unit: start} | ({"then": then} if then else {})


def _one_of(settings, key, allowed):
    """The setting `key`, which must be in `allowed`; of a dict, what `allowed` has for it."""
    value = settings.get(key)
    if value not in allowed:
        raise InputError(f"{key} is {value!r}; set it to one of: {', '.join(allowed)}")
    return allowed[value] if isinstance(allowed, dict) else value
