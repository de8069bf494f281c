"""The first chunk of a modality for people to look at: its bytes, what `% 128` leaves of them, what surprises a model.

Pictures are data URIs: grey images for what is no text, a curve for speech.
"""

import base64
import io
from itertools import pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from bitlaw.data import seven_bit

EDGES = (1, 2, 4, 8, 12)  # bits: a token below the first is expected, one above the last a surprise
LEVELS = ("below 1", *(f"{low} to {high}" for low, high in pairwise(EDGES)), f"{EDGES[-1]} or more")
ROW_BYTES = 64  # of a picture
MOST = 10  # tokens in the list of surprises


def look(chunk, cut, token_bytes, bits):
    """What the page shows of a chunk: a dict of texts, pictures and tokens.

    chunk: uint8 `[bytes]`; cut: bytes, image or speech; token_bytes int `[tokens]`: bytes that each token stands for;
    bits float `[tokens]`: its code length. Raises ValueError when these do not belong together.
    """
    if int(np.sum(token_bytes)) != len(chunk) or len(bits) != len(token_bytes):
        raise ValueError(
            f"{len(bits)} code lengths, {len(token_bytes)} tokens, {len(chunk)} bytes do not belong together"
        )
    ends = np.cumsum(token_bytes)
    image = seven_bit.to_ascii(chunk)
    pieces = [image[end - size : end] for end, size in zip(ends, token_bytes, strict=True)]
    levels = np.searchsorted(EDGES, bits, side="right")
    order = np.argsort(-np.asarray(bits), kind="stable")[:MOST]
    is_text = cut == "bytes" and readable(chunk)
    texts = [shown(piece, is_text) for piece in pieces]
    return {
        "bytes": len(chunk),
        "text": chunk.tobytes().decode("utf-8", "replace") if is_text else None,
        "pictures": [] if is_text else pictures(chunk, cut, np.repeat(np.asarray(bits) / token_bytes, token_bytes)),
        "tokens": [
            {"text": text, "bits": float(b), "level": int(level)}
            for text, b, level in zip(texts, bits, levels, strict=True)
        ],
        "surprises": [
            {"text": repr(pieces[i])[1:-1], "bits": float(bits[i]), "offset": int(ends[i] - token_bytes[i])}
            for i in order
        ],
        "shares": [float(np.mean(levels == level)) for level in range(len(LEVELS))],
        "bits": float(np.sum(bits)),
        "high": float(np.mean(seven_bit.top_bits(chunk))),
    }


def readable(chunk):
    """Whether nearly all of the bytes are printable ASCII or white space."""
    return bool(np.mean(((chunk >= 32) & (chunk < 127)) | (chunk == 9) | (chunk == 10) | (chunk == 13)) > 0.9)


def shown(text, breaks):
    """ASCII text with a dot for each control character and a sign for each end of line, which breaks if `breaks`."""
    signs = dict.fromkeys([*range(32), 127], "·") | {10: "↵\n" if breaks else "↵"}
    return text.translate(signs)


def pictures(chunk, cut, bits_by_byte):
    """[(title, what one sees, data URI)]: the chunk, the chunk after % 128, the bits each byte costs."""
    low = chunk & 127
    if cut == "speech":
        waves = [data.tobytes() for data in (chunk, low)]
        first, second = (_wave(np.frombuffer(wave, dtype="<i2")) for wave in waves)
        kept = "the same samples after % 128 of each byte: of 16 bits, 14 are left, and no sign"
        return [("The samples", "waveform of the chunk, 16-bit samples", first), ("After % 128", kept, second),
                ("Bits", "bits a byte, two bytes a sample", _wave(bits_by_byte))]  # fmt: skip
    rest = -len(chunk) % ROW_BYTES
    grey, kept, bits = (np.pad(a, (0, rest)).reshape(-1, ROW_BYTES) for a in (chunk, low, bits_by_byte))
    return [
        ("The bytes", f"the chunk as a grey picture, {ROW_BYTES} bytes a row", _grey(grey, 255)),
        ("After % 128", "the same without the top bits, on the same scale of grey", _grey(kept, 255)),
        ("Bits", f"bits a byte from 0 (black) to {max(bits.max(), 1):.0f} (white)", _grey(bits, max(bits.max(), 1))),
    ]


def _grey(values, highest):
    file, levels = io.BytesIO(), np.round(values * (255 / highest)).astype(np.uint8)
    imsave(file, np.stack([levels] * 3, axis=-1), format="png", metadata={"Software": None})
    return _uri("image/png", file.getvalue())


def _wave(values):
    figure = Figure(figsize=(4, 1.1))
    FigureCanvasAgg(figure)
    panel = figure.add_axes((0.005, 0.02, 0.99, 0.96))
    panel.plot(values, color="#1f4e79", linewidth=0.6)
    panel.set(xticks=[], yticks=[], xlim=(0, len(values) - 1))
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.axhline(0, color="0.6", linewidth=0.4, zorder=0)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=220, metadata={"Software": None})
    return _uri("image/png", file.getvalue())


def _uri(kind, data):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
