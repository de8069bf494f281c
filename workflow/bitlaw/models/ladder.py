"""Train the embedded model family: five small GPT-NeoX language models on enwik8.

The recipe is a file (data/ladder/recipe.yaml); a checkpoint is a folder in the layout of the
Hugging Face Hub (config.json, model.safetensors, tokenizer.json), so that it loads like any other.
"""

import csv
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from bitlaw import InputError
from bitlaw.data.seven_bit import to_ascii

log = logging.getLogger("bitlaw")
CONFIG_KEYS = (  # of config.json: those that Pythia's has
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "initializer_range", "use_parallel_residual"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id"),
)
PIECE = 1 << 16  # bytes tokenised at a time; bounds memory


def read_recipe(path):
    return yaml.safe_load(Path(path).read_text())


def text_range(raw, first, last):
    """ASCII text of bytes [first, last) of the file `raw`, as a list of strings of PIECE characters."""
    data = np.fromfile(raw, dtype=np.uint8, count=last - first, offset=first)
    if len(data) != last - first:
        raise InputError(f"{raw}: has no bytes [{first}, {last}); is it the whole of enwik8?")
    return [to_ascii(data[i : i + PIECE]) for i in range(0, len(data), PIECE)]


def train_tokenizer(texts, vocabulary):
    """Byte-level BPE with `vocabulary` entries and no special tokens, over the ASCII alphabet."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted({c for i in range(128) for piece, _ in byte_level.pre_tokenize_str(chr(i)) for c in piece})
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer, texts):
    """Token ids of `texts`, concatenated, as uint16 `[tokens]`."""
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.concatenate([np.asarray(e.ids, dtype=np.uint16) for e in encodings])


def learning_rate(step, peak, training):
    """Linear warm-up, then a cosine from `peak` to `final_learning_rate * peak` at the last step."""
    warmup, steps, floor = training["warmup_steps"], training["steps"], training["final_learning_rate"]
    if step < warmup:
        return peak * (step + 1) / warmup
    phase = (step - warmup) / (steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * phase)))


def build(shape, training, vocabulary):
    """A freshly initialised model; `initializer_range` is GPT-NeoX's small init, sqrt(2 / 5h)."""
    hidden = shape["hidden_size"]
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
        max_position_embeddings=training["sequence_length"],
        initializer_range=math.sqrt(2 / (5 * hidden)),
        use_parallel_residual=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(training["seed"])
    return GPTNeoXForCausalLM(config)


def save_checkpoint(model, tokenizer, folder):
    """Write the checkpoint in float16: those weights, not the float32 masters, are the model."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # transformers renamed the head to lm_head but reads and publishes the name that Pythia's files have
    weights = {
        name.replace("lm_head.", "embed_out."): tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    rotary = model.config.rope_parameters
    config = {name: getattr(model.config, name) for name in CONFIG_KEYS}
    config |= {"rotary_pct": rotary["partial_rotary_factor"], "rotary_emb_base": rotary["rope_theta"]}
    config |= {"architectures": ["GPTNeoXForCausalLM"], "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def loss_of(model, batch, dtype):
    """Mean cross-entropy in nats a token of `batch`, int64 `[sequences, length + 1]`."""
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = model(batch[:, :-1], use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


def validation_loss(model, tokens, training, sequences):
    """Mean loss in nats a token over the first `sequences` windows of `tokens`."""
    length = training["sequence_length"] + 1
    windows = torch.from_numpy(tokens[: sequences * length].astype(np.int64)).view(-1, length)
    model.eval()
    with torch.no_grad():
        losses = [loss_of(model, w, torch.float32) for w in windows.split(training["batch_size"])]
    model.train()
    return float(torch.stack(losses).mean())


def train(name, recipe, raw, tokenizer_path, out, stop_after=None):
    """Train model `name` of `recipe` on the file `raw` (enwik8); write checkpoints and losses.csv to `out`.

    losses.csv has a row a step: step (1-based, after the update), tokens seen, learning rate, training loss
    (nats a token), validation loss and validation bits a byte (at checkpoints, else empty).
    `stop_after` ends early without changing the schedule. Returns the list of training losses.
    """
    training, shape = recipe["training"], recipe["models"][name]
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokens = encode(tokenizer, text_range(raw, *recipe["source"]["train_range"]))
    held_out = encode(tokenizer, held_out_text := text_range(raw, *recipe["source"]["validation_range"]))
    bytes_per_token = sum(map(len, held_out_text)) / len(held_out)
    length, batch_size = training["sequence_length"] + 1, training["batch_size"]
    needed, windows = training["steps"] * batch_size, len(tokens) // length
    if needed > windows:
        raise InputError(f"train_range holds {windows} sequences, the schedule needs {needed}: widen it")
    order = np.random.default_rng(training["seed"]).permutation(windows)[:needed]

    model = build(shape, training, tokenizer.get_vocab_size())
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": training["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
        betas=tuple(training["betas"]),
        fused=True,
    )
    dtype = getattr(torch, training["compute_dtype"])
    out, losses, started = Path(out), [], time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "losses.csv", "w", newline="") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["step", "tokens", "learning_rate", "train_loss", "validation_loss", "validation_bits_per_byte"])
        for step in range(min(stop_after or training["steps"], training["steps"])):
            rate = learning_rate(step, shape["learning_rate"], training)
            for group in optimizer.param_groups:
                group["lr"] = rate
            picks = order[step * batch_size : (step + 1) * batch_size]
            batch = np.stack([tokens[i * length : (i + 1) * length] for i in picks]).astype(np.int64)
            loss = loss_of(model, torch.from_numpy(batch), dtype)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training["clip"])
            optimizer.step()
            losses.append(loss.item())
            done, seconds, held = step + 1, time.monotonic() - started, ("", "")
            if done in training["checkpoints"]:
                save_checkpoint(model, tokenizer, out / f"step{done}")
                nats = validation_loss(model, held_out, training, recipe["validation"]["sequences"])
                held = (f"{nats:.5f}", f"{nats / math.log(2) / bytes_per_token:.5f}")
                log.info("%s: step %d, validation %s bits a byte", name, done, held[1])
            rows.writerow([done, done * batch_size * (length - 1), f"{rate:.6g}", f"{losses[-1]:.5f}", *held])
            if done % 25 == 0:
                table.flush()
                left = seconds / done * (training["steps"] - done)
                log.info("%s: step %d of %d, loss %.3f, %.0f s left", name, done, training["steps"], losses[-1], left)
    return losses
