"""Bytes as the text that a tokenizer takes: the low seven bits of each as an ASCII symbol, b % 128; the top bit apart.

This is how the published study showed images and sound to a language model. Both parts together are the bytes again.
"""

import numpy as np


def to_ascii(data):
    """`chr(b % 128)` for every byte of `data` (bytes or uint8 array), as a str of the same length."""
    return (np.frombuffer(data, dtype=np.uint8) & 127).tobytes().decode("ascii")


def top_bits(data):
    """The bit that `to_ascii` drops, for every byte of `data`: uint8 array of 0 and 1."""
    return np.frombuffer(data, dtype=np.uint8) >> 7


def from_ascii(text, bits):
    """Inverse of the two above: the bytes whose ASCII image is `text` (bytes) and whose top bits are `bits`."""
    low = np.frombuffer(text, dtype=np.uint8)
    return (low | (np.asarray(bits, dtype=np.uint8) << 7)).tobytes()
