"""Fixtures of the tiny models in `tiny_models`."""

import bitlaw.models.gpt_neox  # noqa: F401, I001  (before torch: it sets MKL_CBWR)

import pytest
import torch
from bitlaw.data import tokens
from bitlaw.models import checkpoint
from bitlaw.models.ladder import train_tokenizer
from repository import EXAMPLE, clone_to
from tiny_models import PASSAGE, VOCABULARY, neox_checkpoint

torch.set_num_threads(1)  # the models are too small for more to help; tests of thread counts set their own


@pytest.fixture(scope="session")
def passage():
    return PASSAGE


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([PASSAGE], VOCABULARY)


@pytest.fixture(scope="session")
def neox_folder(tokenizer, tmp_path_factory):
    return neox_checkpoint(tokenizer, tmp_path_factory.mktemp("neox"), seed=1)


@pytest.fixture(scope="session")
def other_neox_folder(tokenizer, tmp_path_factory):
    return neox_checkpoint(tokenizer, tmp_path_factory.mktemp("other"), seed=2)


@pytest.fixture(scope="session")
def serial_neox_folder(tokenizer, tmp_path_factory):
    """One that adds attention and feed-forward one after the other."""
    return neox_checkpoint(tokenizer, tmp_path_factory.mktemp("serial"), seed=3, use_parallel_residual=False)


@pytest.fixture(scope="session")
def gpt2_folder(tokenizer, tmp_path_factory):
    """A checkpoint of another architecture, for the way through transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 2:
                tensor *= 10
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def neox(neox_folder):
    return checkpoint.load(neox_folder)


@pytest.fixture(scope="session")
def gpt2(gpt2_folder):
    return checkpoint.load(gpt2_folder)


@pytest.fixture(scope="session")
def spelling(neox_folder):
    return tokens.open_tokenizer(neox_folder / "tokenizer.json")[1]


@pytest.fixture
def threads():
    """`torch.set_num_threads`; the number from before is restored."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made_up_study(tokenizer, passage, tmp_path_factory):
    """The files that a page is made from, of a made-up study."""
    import made_up  # here, as it loads what draws and fits

    folder = tmp_path_factory.mktemp("study")
    tokenizer.save(str(folder / "tokenizer.json"))
    return made_up.study(folder, folder / "tokenizer.json", passage)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the files that git knows, as a fresh clone has them, with the study that the README shows."""
    folder = clone_to(tmp_path_factory.mktemp("clone"))
    (folder / "mine.yaml").write_text(EXAMPLE)
    return folder
