"""Tiny checkpoints with random weights: large enough in context and steep enough in prediction to matter."""

import bitlaw.neox  # noqa: F401, I001  (before torch: it sets MKL_CBWR)

import json

import pytest
import torch
from bitlaw import checkpoints, tokens
from bitlaw.ladder import build, save_checkpoint, train_tokenizer

PASSAGE = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
    "twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, and "
    "what is the use of a book, thought Alice, without pictures or conversations? So she was considering in her own "
    "mind (as well as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of making "
    "a daisy-chain would be worth the trouble of getting up and picking the daisies, when suddenly a White Rabbit with "
    "pink eyes ran close by her.\n\tThere was nothing so VERY remarkable in that; nor did Alice think it so VERY much "
    "out of the way to hear the Rabbit say to itself, Oh dear! Oh dear! I shall be late! 1862, 1865, 12 by 42.\r\n"
)
CONTEXT = 320  # crosses a block of 256 keys
VOCABULARY = 300
PADDED_VOCABULARY = 304  # as Pythia's, larger than its tokenizer's
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


torch.set_num_threads(1)  # the models are too small for more to help; tests of thread counts set their own


@pytest.fixture(scope="session")
def passage():
    return PASSAGE


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([PASSAGE], VOCABULARY)


def neox_checkpoint(tokenizer, folder, seed, **settings):
    """A GPT-NeoX checkpoint whose weights are scaled so that the context and the token make a difference."""
    model = build(SHAPE, {"sequence_length": CONTEXT, "seed": seed}, PADDED_VOCABULARY)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim == 2:
                tensor *= 2 if "lm_head" in name or "embed_out" in name else 3
            elif name.endswith("bias"):
                tensor += 0.1 * torch.randn_like(tensor)
    save_checkpoint(model, tokenizer, folder)
    if settings:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


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
    return checkpoints.load(neox_folder)


@pytest.fixture(scope="session")
def gpt2(gpt2_folder):
    return checkpoints.load(gpt2_folder)


@pytest.fixture(scope="session")
def spelling(neox_folder):
    return tokens.open_tokenizer(neox_folder / "tokenizer.json")[1]


@pytest.fixture
def threads():
    """`torch.set_num_threads`; the number from before is restored."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
