"""The options of the commands that compute with a model."""

import os
from contextlib import contextmanager
from pathlib import Path

from bitlaw import InputError

MOST_THREADS = 1024
PRECISION = "exact, fp32, bf16, fp16 or int8 (default: exact where it computes the model, else fp32)"


def add(command):
    """Add --model, --tokenizer, --device and --threads to the parser `command`."""
    command.add_argument(
        "--model", required=True, metavar="MODEL",
        help="folder with config.json and *.safetensors, GGUF file, or owner/name@revision on the Hugging Face Hub",
    )  # fmt: skip
    command.add_argument("--tokenizer", type=Path, help="tokenizer.json (default: the one in the model's folder)")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what computes (%(default)s)")
    command.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads (%(default)s)")


def folder_and_tokenizer(arguments):
    """(checkpoint folder, tokenizer.json) to use; InputError when --model names none."""
    from bitlaw.models import named

    folder = named.folder(arguments.model)
    return folder, arguments.tokenizer or folder / "tokenizer.json"


def check_threads(threads):
    """Raise InputError for a number of threads that cannot be."""
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"--threads {threads}: give a number from 1 to {MOST_THREADS}")


@contextmanager
def device(arguments):
    """Check --threads; hold the device for this process alone while it is used, and tell its failures in one line."""
    from bitlaw.runtime import cuda, gpu

    check_threads(arguments.threads)
    with gpu.lease(arguments.device), gpu.failures(arguments.device):
        cuda.check(arguments.device)
        yield


def precision(arguments, folder):
    """arguments.precision, or exact where it computes the model in `folder`; else fp32, with a warning."""
    import logging

    from bitlaw.models.checkpoint import read_config
    from bitlaw.models.exact import description

    if arguments.precision:
        return arguments.precision
    reason = description.covers(read_config(folder))
    if reason is None:
        return "exact"
    logging.getLogger("bitlaw").warning(
        "%s: coded in fp32, as exact arithmetic does not compute it (%s); decodes only where the same kernels run",
        arguments.model, reason,
    )  # fmt: skip
    return "fp32"
