"""bitlaw: how well language models compress bytes, every bit counted, and the scaling laws of it."""

import os

# A thread that waits must sleep: jobs share the processors, and one that spins costs the others a time slice.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class InputError(ValueError):
    """Bad input; the message is one line that names the file, the value and the remedy."""
