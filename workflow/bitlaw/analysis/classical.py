"""Classical compressors on the bytes that the models code: every chunk by itself, and all chunks one after another.

A size is that of the whole output, headers, checks and end marks included, as the command line in `flags` writes it
from standard input to standard output. Every output is decompressed and compared with its input; a compressor that
does not give its input back has no size, and says so in its row.
"""

import bz2
import io
import logging
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

COLUMN_NAMES = ("modality", "compressor", "flags", "scope", "chunks", "bytes_in", "bytes_out", "ratio", "status")
SCOPES = ("chunk", "whole")
log = logging.getLogger("bitlaw")
_PPMD = {"max_order": 6, "mem_size": 1 << 24}  # as zip's method 98 has it by default
# pyppmd 1.3.1 loses a byte where one symbol's bytes cross the end of a block of its output, the first of which has
# 32 KiB: a call with so few bytes never fills one, as a symbol takes at most three bytes in each of seven contexts
_PPMD_PIECE = 1024


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


def _ppmd(data):
    stream = pyppmd.Ppmd8Encoder(**_PPMD)
    pieces = [stream.encode(data[i : i + _PPMD_PIECE]) for i in range(0, len(data), _PPMD_PIECE)]
    return b"".join([*pieces, stream.flush()])


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
        _ppmd,
        partial(pyppmd.decompress, **_PPMD, variant="I"),
    ),
}


def compressors(sampling):
    """{name: Compressor} for chunks that were cut by `sampling` (a manifest's): PNG for images, FLAC for speech too."""
    tools = dict(GENERAL)
    if sampling["cut"] == "image":
        tools["png"] = Compressor(f"Pillow: PNG, 8-bit grey, {PATCH_COLUMNS} wide, optimize", _png, _from_png)
    if sampling["cut"] == "speech":
        rate = sampling["rate"]
        flags = "flac -8 --no-padding --force-raw-format --endian=little --sign=signed --channels=1 --bps=16"
        tools["flac"] = Compressor(f"{flags} --sample-rate={rate}", partial(_flac, rate=rate), _from_flac)
    return tools


def measure(modality, chunks, sampling, names=None):
    """Rows with COLUMN_NAMES, a dict a compressor and scope ("chunk", then "whole"), of `chunks` (bytes each).

    names: the compressors wanted; those that are not for this kind of chunks are left out. status is "ok", or
    "failed: " and why; a failed row has no bytes_out and no ratio, and a warning at the end of the log.
    """
    tools = {name: tool for name, tool in compressors(sampling).items() if names is None or name in names}
    report, done = progress(f"classical {modality}", len(SCOPES) * len(tools), "passes"), 0
    rows = []
    for name, tool in tools.items():
        for scope, inputs in zip(SCOPES, (chunks, [b"".join(chunks)]), strict=True):
            size, status = _size(tool, inputs, scope)
            total = sum(map(len, inputs))
            ratio = None if size is None else size / total
            values = (modality, name, tool.flags, scope, len(chunks), total, size, ratio, status)
            rows.append(dict(zip(COLUMN_NAMES, values, strict=True)))
            report(done := done + 1)
    for row in rows:
        if row["status"] != "ok":
            log.warning("%s: %s, %s: %s; it has no size", modality, row["compressor"], row["scope"], row["status"])
    return rows


def _size(tool, inputs, scope):
    """(bytes of all outputs, "ok"), or (None, "failed: " and why) when an output is not had or not its input's."""
    size = 0
    for number, data in enumerate(inputs):
        try:
            packed = tool.compress(data)
            same = tool.decompress(packed) == data
        except MemoryError:  # the machine's failure, which another try may not see
            raise
        except Exception as error:  # each library has its own
            reason = str(error).partition("\n")[0]
            return None, f"failed: {type(error).__name__}: {reason} ({scope} {number})"
        if not same:
            return None, f"failed: decompresses to other bytes ({scope} {number})"
        size += len(packed)
    return size, "ok"
