"""Train the embedded model family: small GPT-NeoX language models on enwik8, by one recipe.

The recipe is a file (data/ladder/recipe.yaml); a checkpoint is a folder in the layout of the
Hugging Face Hub (config.json, model.safetensors, tokenizer.json), so that it loads like any other.
A run that was interrupted goes on where its last saved state is, and ends with the same files.
"""

import csv
import hashlib
import json
import logging
import math
import pickle
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
from bitlaw.runtime.atomic import replacing, write_text

log = logging.getLogger("bitlaw")
CONFIG_KEYS = (  # of config.json: those that Pythia's has
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "initializer_range", "use_parallel_residual"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id"),
)
PIECE = 1 << 16  # bytes tokenised at a time; bounds memory
SAVE_SECONDS = 240  # between saved states: what an interruption costs at most
COLUMNS = ("step", "tokens", "learning_rate", "train_loss", "validation_loss", "validation_bits_per_byte")


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
    """A freshly initialised model; `initializer_range` is GPT-NeoX's small init, sqrt(2 / 5h).

    `training` gives seed, sequence_length (the context) and, unless it is Pythia's 0.25, rotary_pct: the part of each
    head's dimensions that carries positions.
    """
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
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": training.get("rotary_pct", 0.25),
        },
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(training["seed"])
    return GPTNeoXForCausalLM(config)


def save_checkpoint(model, tokenizer, folder):
    """Write the checkpoint in float16: those weights, not the float32 masters, are the model.

    Each file is written whole or not at all, the weights last: a folder that has them is a checkpoint.
    """
    folder = Path(folder)
    # transformers renamed the head to lm_head but reads and publishes the name that Pythia's files have
    weights = {
        name.replace("lm_head.", "embed_out."): tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    rotary = model.config.rope_parameters
    config = {name: getattr(model.config, name) for name in CONFIG_KEYS}
    config |= {"rotary_pct": rotary["partial_rotary_factor"], "rotary_emb_base": rotary["rope_theta"]}
    config |= {"architectures": ["GPTNeoXForCausalLM"], "torch_dtype": "float16"}
    with replacing(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    write_text(folder / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
    with replacing(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})


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


def order_of(windows, needed, seed):
    """Which window comes when: `needed` of `windows` in an order drawn by `seed`, all of them before any again."""
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.permutation(windows) for _ in range(math.ceil(needed / windows))])[:needed]


def batch_of(tokens, picks, length, pieces):
    """The windows `picks` of `tokens`, each cut into `pieces`: int64 `[len(picks) * pieces, length / pieces + 1]`.

    A window is `length` + 1 tokens, so that `length` of them are predicted; a piece ends with the token that the next
    begins with, so that the pieces predict the same tokens as the window, from less before them.
    """
    windows = np.stack([tokens[i * (length + 1) : (i + 1) * (length + 1)] for i in picks]).astype(np.int64)
    part = length // pieces
    return torch.from_numpy(np.concatenate([windows[:, i * part : (i + 1) * part + 1] for i in range(pieces)]))


def write_losses(path, rows, bytes_per_token):
    """Write losses.csv: COLUMNS of the `rows` (step, tokens, rate, loss, validation loss or None), losses in nats."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for step, seen, rate, loss, nats in rows:
            held = ("", "") if nats is None else (f"{nats:.5f}", f"{nats / math.log(2) / bytes_per_token:.5f}")
            table.writerow([step, seen, f"{rate:.6g}", f"{loss:.5f}", *held])


def run_id(name, recipe, tokenizer_path, tokens):
    """Hash of all that a run of model `name` depends on: its part of the recipe, the tokenizer and the tokens."""
    part = {key: value for key, value in recipe.items() if key != "models"} | {name: recipe["models"][name]}
    digest = hashlib.sha256(json.dumps(part, sort_keys=True).encode())
    digest.update(Path(tokenizer_path).read_bytes())
    digest.update(tokens.tobytes())
    return digest.hexdigest()


def save_state(path, run, model, optimizer, rows):
    """Write all that the next step depends on; a step draws nothing at random, so `rows` tell where the run is."""
    state = {"run": run, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "rows": rows}
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path, run, model, optimizer):
    """Put the state at `path` into `model` and `optimizer` and return its rows; InputError if it is not of `run`."""
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: not a saved state ({error}); remove it to train from the beginning") from None
    if state["run"] != run:
        raise InputError(
            f"{path}: the state of a run with another recipe, tokenizer or text; remove it to train from the beginning"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["rows"]


def train(name, recipe, raw, tokenizer_path, out, stop_after=None):
    """Train model `name` of `recipe` on the file `raw` (enwik8); write checkpoints and losses.csv to the folder `out`.

    losses.csv has a row a step: step (1-based, after the update), tokens seen, learning rate, training loss
    (nats a token), validation loss and validation bits a byte (at checkpoints, else empty).
    `stop_after` ends early without changing the schedule. Returns the list of training losses.

    `out`/state.pt is saved every SAVE_SECONDS. Called again, `train` goes on from it; with as many threads it ends with
    the files, bit for bit, of a run that was never interrupted. Raises InputError when that state is of another recipe,
    tokenizer or text, and when the text is shorter than one sequence.
    """
    training, shape, out = recipe["training"], recipe["models"][name], Path(out)
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokens = encode(tokenizer, text_range(raw, *recipe["source"]["train_range"]))
    held_out = encode(tokenizer, held_out_text := text_range(raw, *recipe["source"]["validation_range"]))
    bytes_per_token = sum(map(len, held_out_text)) / len(held_out)
    length, batch_size, steps = training["sequence_length"], training["batch_size"], training["steps"]
    cuts = training.get("pieces", [1])
    if not (windows := len(tokens) // (length + 1)):
        raise InputError(f"train_range holds {len(tokens)} tokens, less than one sequence of {length} + 1: widen it")
    order = order_of(windows, steps * batch_size, training["seed"])

    model = build(shape, training, tokenizer.get_vocab_size())
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": training["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
        betas=tuple(training["betas"]),
        fused=True,
    )
    dtype = getattr(torch, training["compute_dtype"])
    state, run = out / "state.pt", run_id(name, recipe, tokenizer_path, tokens)
    rows = load_state(state, run, model, optimizer) if state.exists() else []
    first, last = len(rows), min(stop_after or steps, steps)
    if first:
        log.info("%s: goes on after step %d", name, first)
    started = saved = time.monotonic()
    for step in range(first, last):
        rate = learning_rate(step, shape["learning_rate"], training)
        for group in optimizer.param_groups:
            group["lr"] = rate
        picks = order[step * batch_size : (step + 1) * batch_size]
        loss = loss_of(model, batch_of(tokens, picks, length, cuts[step % len(cuts)]), dtype)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training["clip"])
        optimizer.step()
        done, nats = step + 1, None
        if done in training["checkpoints"]:
            save_checkpoint(model, tokenizer, out / f"step{done}")
            nats = validation_loss(model, held_out, training, recipe["validation"]["sequences"])
            log.info("%s: step %d, validation %.5f bits a byte", name, done, nats / math.log(2) / bytes_per_token)
        rows.append((done, done * batch_size * length, rate, loss.item(), nats))
        if done == last or nats is not None or time.monotonic() - saved > SAVE_SECONDS:
            save_state(state, run, model, optimizer, rows)
            write_losses(out / "losses.csv", rows, bytes_per_token)
            saved = time.monotonic()
        if done % 25 == 0:
            left = (time.monotonic() - started) / (done - first) * (steps - done)
            log.info("%s: step %d of %d, loss %.3f, %.0f s left", name, done, steps, rows[-1][3], left)
    return [row[3] for row in rows]
