"""Tell where a long step is and how long it will take, through `logging` (terminal and log file alike)."""

import logging
import sys
import time
import traceback

from bitlaw import InputError

SECONDS_BETWEEN = 5.0


def progress(what, total, unit="", scale=1):
    """Return a function to be called with the amount done so far; logs at most every SECONDS_BETWEEN seconds.

    `total` may be None when unknown; amounts are divided by `scale` for display (1e6 for MB).
    """
    log = logging.getLogger("bitlaw")
    started = last = time.monotonic()

    def at(done):
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN:
            return
        last = now
        if not total:
            log.info("%s: %.4g %s", what, done / scale, unit)
            return
        left = (now - started) * (total - done) / done if done else float("nan")
        log.info("%s: %.4g of %.4g %s, %.0f s left", what, done / scale, total / scale, unit, left)

    return at


def log_to(path):
    """Send messages to the terminal and to the file `path`; a traceback goes to the file, its last line to both."""
    handlers = [logging.StreamHandler(), logging.FileHandler(path, mode="w")]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=handlers)
    log = logging.getLogger("bitlaw")
    log.setLevel(logging.INFO)

    def failed(kind, error, trace):
        handlers[1].stream.write("".join(traceback.format_exception(kind, error, trace)))
        log.error("%s (more in %s)", error if isinstance(error, InputError) else f"{kind.__name__}: {error}", path)

    sys.excepthook = failed
