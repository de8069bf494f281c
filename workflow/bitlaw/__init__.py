"""bitlaw: how well language models compress bytes, every bit counted, and the scaling laws of it."""


class InputError(ValueError):
    """Bad input; the message is one line that names the file, the value and the remedy."""
