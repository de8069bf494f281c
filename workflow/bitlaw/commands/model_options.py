"""The options of the commands that compute with a model."""

import os
from pathlib import Path


def add(command):
    """Add --model, --tokenizer and --threads to the parser `command`."""
    command.add_argument("--model", type=Path, required=True, help="folder with config.json, *.safetensors")
    command.add_argument("--tokenizer", type=Path, help="tokenizer.json (default: the one in the model's folder)")
    command.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads")


def tokenizer(arguments):
    """The tokenizer.json to use."""
    return arguments.tokenizer or arguments.model / "tokenizer.json"
