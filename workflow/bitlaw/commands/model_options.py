"""The options of the commands that compute with a model."""

import os
from pathlib import Path


def add(command):
    """Add --model, --tokenizer and --threads to the parser `command`."""
    command.add_argument(
        "--model", required=True, metavar="MODEL",
        help="folder with config.json and *.safetensors, GGUF file, or owner/name@revision on the Hugging Face Hub",
    )  # fmt: skip
    command.add_argument("--tokenizer", type=Path, help="tokenizer.json (default: the one in the model's folder)")
    command.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads")


def folder_and_tokenizer(arguments):
    """(checkpoint folder, tokenizer.json) to use; InputError when --model names none."""
    from bitlaw.models import named

    folder = named.folder(arguments.model)
    return folder, arguments.tokenizer or folder / "tokenizer.json"
