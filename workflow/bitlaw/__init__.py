"""bitlaw: how well language models compress bytes, every bit counted, and the scaling laws of it."""

import os

# The matrix library reads this once, when torch loads it: keep one order of summation whatever the shape (see `neox`).
os.environ.setdefault("MKL_CBWR", "AVX2")


class InputError(ValueError):
    """Bad input; the message is one line that names the file, the value and the remedy."""
