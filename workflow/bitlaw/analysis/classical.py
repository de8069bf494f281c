"""Classical compressors on the bytes that the models code: every chunk by itself, and all chunks one after another.

A size is that of the whole output, headers, checks and end marks included, as the command line in `flags` writes it
from standard input to standard output. Every output is decompressed and compared with its input.
"""

import bz2
import io
import lzma
import zlib
from functools import cache, partial
from typing import NamedTuple

import brotli
import numpy as np
import pyppmd
import soundfile
import zstandard
from PIL import Image

from bitlaw.data.chunking import PATCH_COLUMNS
from bitlaw.runtime.logs import progress

COLUMN_NAMES = ("modality", "compressor", "flags", "scope", "chunks", "bytes_in", "bytes_out", "ratio")
_PPMD = {"max_order": 6, "mem_size": 1 << 24, "variant": "I"}  # as zip's method 98 has it by default


class Compressor(NamedTuple):
    """How a tool is called, and the two directions in this process, bytes to bytes."""

    flags: str
    compress: callable
    decompress: callable


def _gzip(data):
    # 31: a window of 32 KiB in gzip's container; 9: as many symbols a block as GNU gzip takes at most
    stream = zlib.compressobj(9, zlib.DEFLATED, 31, 9)
    return stream.compress(data) + stream.flush()


def _xz(data):
    # a dictionary of 64 MiB is cleared for every chunk; one as long as the data gives an output of the same size
    dictionary = min(1 << 26, max(1 << 12, len(data)))
    preset = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}
    return lzma.compress(data, filters=[preset])


@cache
def _zstd_22():
    return zstandard.ZstdCompressor(level=22, write_checksum=True)  # its tables take half a gigabyte: once is enough


def _zstd(data):
    stream = _zstd_22().compressobj()  # by pieces, as from a pipe: the frame does not know its size beforehand
    return stream.compress(data) + stream.flush()


def _unzstd(data):
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _png(data):
    out = io.BytesIO()
    Image.frombytes("L", (PATCH_COLUMNS, len(data) // PATCH_COLUMNS), data).save(out, format="PNG", optimize=True)
    return out.getvalue()


def _from_png(data):
    return Image.open(io.BytesIO(data)).tobytes()


def _flac(data, rate):
    out = io.BytesIO()
    samples = np.frombuffer(data, dtype="<i2")
    # soundfile counts the levels 0 to 8 from 0 to 1
    soundfile.write(out, samples, rate, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return out.getvalue()


def _from_flac(data):
    return soundfile.read(io.BytesIO(data), dtype="int16")[0].astype("<i2").tobytes()


GENERAL = {
    "gzip": Compressor("gzip -9n", _gzip, partial(zlib.decompress, wbits=31)),
    "bzip2": Compressor("bzip2 -9", partial(bz2.compress, compresslevel=9), bz2.decompress),
    "xz": Compressor("xz -9e -T1", _xz, lzma.decompress),
    "zstd": Compressor("zstd --ultra -22", _zstd, _unzstd),
    "brotli": Compressor("brotli -q 11 -w 24", partial(brotli.compress, quality=11, lgwin=24), brotli.decompress),
    "ppmd": Compressor(
        "PPMd var. I, order 6, 16 MiB, bare stream with end mark (no command line)",
        partial(pyppmd.compress, **_PPMD),
        partial(pyppmd.decompress, **_PPMD),
    ),
}


def compressors(sampling):
    """Name to Compressor for chunks that were cut by `sampling` (a manifest's): PNG for images, FLAC for speech too."""
    found = dict(GENERAL)
    if sampling["cut"] == "image":
        found["png"] = Compressor(f"Pillow: PNG, 8-bit grey, {PATCH_COLUMNS} wide, optimize", _png, _from_png)
    if sampling["cut"] == "speech":
        rate = sampling["rate"]
        flags = "flac -8 --no-padding --force-raw-format --endian=little --sign=signed --channels=1 --bps=16"
        found["flac"] = Compressor(f"{flags} --sample-rate={rate}", partial(_flac, rate=rate), _from_flac)
    return found


def measure(modality, chunks, sampling):
    """Rows with COLUMN_NAMES, a dict a compressor and scope ("chunk", then "whole"), of `chunks` (bytes each).

    Raises RuntimeError when an output does not decompress to its input.
    """
    found = compressors(sampling)
    at, done = progress(f"classical {modality}", 2 * len(found), "passes"), 0
    rows = []
    for name, tool in found.items():
        for scope, inputs in (("chunk", chunks), ("whole", [b"".join(chunks)])):
            size = 0
            for number, data in enumerate(inputs):
                packed = tool.compress(data)
                if tool.decompress(packed) != data:
                    raise RuntimeError(f"{name} ({scope} {number} of {modality}): decompresses to other bytes")
                size += len(packed)
            total = sum(map(len, inputs))
            values = (modality, name, tool.flags, scope, len(chunks), total, size, size / total)
            rows.append(dict(zip(COLUMN_NAMES, values, strict=True)))
            at(done := done + 1)
    return rows
