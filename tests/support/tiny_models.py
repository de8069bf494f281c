"""Tiny checkpoints with random weights: large enough in context and steep enough in prediction to matter."""

import json

import torch
from transformers import AutoModelForCausalLM

from bitlaw.models.ladder import build, save_checkpoint

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
V = {"vocab_size": VOCABULARY}  # settings of transformers' configurations
SIZES = V | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def random_checkpoint(config, folder, scale=10):
    """A checkpoint of a transformers configuration, its matrices `scale` times as large as they are initialised."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 2:
                tensor *= scale
    model.save_pretrained(folder)
    return folder


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
