"""Fused kernels in Triton's interpreter on the processor (`make test-kernels`), or on a card (`make test-gpu`).

Modules that import Triton are imported by fixtures, so that without it these tests fail and all others run.
"""

import importlib
import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"


@pytest.fixture(scope="session")
def interpreted():
    """On a processor kernels are interpreted; Triton reads the variable when it is imported, which torch may do."""
    if DEVICE == "cpu" and not INTERPRETED:
        pytest.fail("no card here: set TRITON_INTERPRET=1 before Python starts, as make test-kernels does")


@pytest.fixture(scope="module")
def device():
    return DEVICE


@pytest.fixture(scope="module")
def kernels(interpreted):
    return importlib.import_module("bitlaw.models.exact.kernels")


@pytest.fixture(scope="module")
def attention_kernel(interpreted):
    return importlib.import_module("bitlaw.models.exact.attention_kernel")


@pytest.fixture(scope="module")
def interval_kernel(interpreted):
    return importlib.import_module("bitlaw.compression.interval_kernel")
