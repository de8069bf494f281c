"""Find, hash and load one checkpoint (model, step) at one precision; count its parameters.

A checkpoint is a folder in the layout of the Hugging Face Hub: config.json, *.safetensors, tokenizer.json.
"""

import copy
import json
import math
import re
import struct
from pathlib import Path

from bitlaw import InputError
from bitlaw.models import contexts, sizes
from bitlaw.runtime import cuda, gpu
from bitlaw.runtime.hashing import digest

# older GPT-NeoX files carry these constants beside the weights; they are not parameters
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
# what transformers calls the embeddings of tokens and positions and the head, of one architecture or another
EMBEDDINGS = {
    *("embed_in", "embed_tokens", "embeddings", "tokens_embed", "word_embedding", "word_embeddings", "wte", "w"),
    *("embed_positions", "position_embeddings", "positions_embed", "token_type_embeddings", "wpe"),
    *("decoder", "embed_out", "head", "lm_head", "lm_loss", "output_projection", "predictions"),
}
SINGLE = "model.safetensors"
SHARD = re.compile(r"-\d+-of-(\d+)\.")  # in the name of one of several files of weights
PRECISIONS = ("exact", "fp32", "bf16", "fp16", "int8")


def weight_files(folder):
    """The safetensors files that hold the weights of `folder`, in name order.

    Where there is an index, the files that it names: a copy beside them (consolidated.safetensors) does not count.
    Raises InputError when there are none, when one is missing, or when it is open which of two sets is the model.
    """
    folder = Path(folder)
    sets = {}
    for path in sorted(folder.glob("*.safetensors")):
        sets.setdefault(SHARD.sub(r"-*-of-\1.", path.name), []).append(path)
    if not sets:
        raise InputError(
            f"{folder}: holds no *.safetensors; give a folder with config.json, weights and tokenizer.json"
        )
    named = _named_by_index(folder / "model.safetensors.index.json")
    # transformers takes a model.safetensors before it looks for an index
    if named and (SINGLE not in sets or sets[SINGLE] == named):
        return named
    if len(sets) > 1:
        raise InputError(f"{folder}: holds two sets of weights ({', '.join(sets)}); keep one of them")
    ((pattern, files),) = sets.items()
    if (shard := SHARD.search(files[0].name)) and len(files) != int(shard[1]):
        raise InputError(f"{folder}: {pattern}: {len(files)} of {int(shard[1])} files are there; fetch the others")
    return files


def _named_by_index(index):
    """Paths of the files that an index of weights names, in name order; none where there is no index."""
    if not index.exists():
        return []
    try:
        files = sorted({index.with_name(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"{index}: not an index of weights; fetch it again") from None
    for path in files:
        if not path.exists():
            raise InputError(f"{index}: names {path.name}, which is not there; fetch it")
    return files


def read_config(folder):
    """The content of the folder's config.json; InputError when it cannot be read as JSON."""
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable model configuration ({error}); give a checkpoint folder") from None


def shapes(folder):
    """Name to shape of every parameter, from the headers alone."""
    entries = {}
    for path in weight_files(folder):
        with open(path, "rb") as file:
            try:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
            except (ValueError, struct.error, MemoryError, OverflowError):
                raise InputError(f"{path}: not a safetensors file; fetch it again") from None
        entries |= header
    return {n: e["shape"] for n, e in entries.items() if n != "__metadata__" and not n.endswith(BUFFERS)}


def is_embedding(name):
    """Whether the parameter `name` (module.weight) belongs to an embedding or the head, by its module's name."""
    return bool({*name.split(".")[-2:-1]} & EMBEDDINGS)


def describe(folder):
    """{weights_sha256, params_total, params_nonembedding} of a checkpoint.

    The hash is that of the files of weights, one after another; params_nonembedding leaves out the embeddings of
    tokens and positions and the head.
    """
    counts = {name: math.prod(shape) for name, shape in shapes(folder).items()}
    embedding = sum(count for name, count in counts.items() if is_embedding(name))
    total = sum(counts.values())
    return {
        "weights_sha256": digest(*weight_files(folder)),
        "params_total": total,
        "params_nonembedding": total - embedding,
    }


def origin(folder):
    """{repository, revision, commit} of a checkpoint that came from the Hugging Face Hub; None of any other."""
    path = Path(folder) / "source.json"
    if not path.exists():
        return None
    source = json.loads(path.read_text())
    return {key: source.get(key) for key in ("repository", "revision", "commit")}


def compute(precision, device):
    """The dtype, as a precision, in which a model of `precision` computes what is not in eight bits.

    int8 computes the rest in fp16, as the published study did; on a processor in fp32, since products in fp16 take
    many times as long there.
    """
    return precision if precision != "int8" else "fp32" if device == "cpu" else "fp16"


def check_vocabulary(model, ids, where=""):
    """Raise InputError, its line beginning with `where`, when a token of `ids` (int arrays) is unknown to `model`."""
    largest = max((int(tokens.max()) for tokens in ids if len(tokens)), default=0)
    if largest >= model.vocabulary:
        raise InputError(
            f"{where}token {largest}, but the model knows {model.vocabulary}: give the tokenizer that belongs to it"
        )


def is_compiled(model):
    """Whether `model` (from `load`) computes in exact arithmetic by the processor's compiled loops."""
    from bitlaw.models.exact.model import Model

    return isinstance(model, Model)


def load(folder, precision="fp32", device="cpu", context=None, prefix=None):
    """The model of `folder`: a `gpt_neox.NeoX` where that computes all its settings, else through transformers.

    In exact arithmetic it is an `exact.model.Model`, on another device than "cpu" an `exact.digits.Digits`. In int8 its
    products have threshold 0 (see `llm_int8`). context: positions of a window where config.json names none, or fewer
    than it names. prefix: the id of a token that stands in front of every window and takes one position of it, or None.

    Raises InputError for what cannot be loaded so, for a context or prefix that the model does not have, and for models
    of transformers that cannot be coded (see `autoregression`).
    """
    cuda.fix_arithmetic(device)
    with gpu.room_for(device, f"the weights of {folder} in {precision}"):
        model = _load(folder, precision, device, context)
    model.context = contexts.chosen(model.context, context, folder)
    if prefix is not None and not 0 <= prefix < model.vocabulary:
        raise InputError(f"{folder}: bos {prefix} given, but the model knows the tokens 0 to {model.vocabulary - 1}")
    if model.context < 2 + (prefix is not None):
        raise InputError(f"{folder}: a context of {model.context} leaves nothing to predict from; give a longer one")
    model.prefix, model.given_context = prefix, context
    return model


def _load(folder, precision, device, context):
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision == "exact":
        from bitlaw.models.exact.model import Model

        model = Model(folder, context)
        return model if device == "cpu" else model.digits(device)
    config = read_config(folder)
    sizes.check(Path(folder) / "config.json", config)
    weight_files(folder)
    # torch takes seconds to import: only those who load weights pay
    import torch

    from bitlaw.models import gpt_neox

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[compute(precision, device)]
    other = f"model_type {config.get('model_type')!r}"
    if config.get("model_type") == gpt_neox.NeoX.architecture:
        other = gpt_neox.not_covered(config)
    if other is None:
        return _neox(folder, config, dtype, device, precision == "int8")
    if precision == "int8":
        raise InputError(
            f"{folder}: precision int8 is for GPT-NeoX models; choose fp32, bf16 or fp16 for this one "
            f"({other} in config.json)"
        )
    from bitlaw.models import autoregression, transformers_lm

    model = transformers_lm.Generic(folder, dtype, device, context)
    autoregression.check(model, folder)
    return model


def _neox(folder, config, dtype, device, eight_bits):
    """A NeoX, or one whose matrices are in eight bits; tensor after tensor goes from its file to the device."""
    from contextlib import ExitStack

    from safetensors import SafetensorError, safe_open

    from bitlaw.models import gpt_neox
    from bitlaw.models.exact import description

    found = {"embed_out.weight" if n == "lm_head.weight" else n: shape for n, shape in shapes(folder).items()}
    found = {name.removeprefix("gpt_neox."): shape for name, shape in found.items()}
    sizes.compare(folder, sizes.of_neox(description.describe(folder)), found)
    in_eight_bits = {}
    if eight_bits:
        from bitlaw.models import llm_int8

        in_eight_bits = {"matrix": llm_int8.quantise, "product": llm_int8.by_rows}
    with ExitStack() as stack:
        files = {}
        for path in weight_files(folder):
            try:
                file = stack.enter_context(safe_open(path, "pt"))
            except SafetensorError as error:
                raise InputError(f"{path}: not a safetensors file ({error}); fetch it again") from None
            files |= {name.removeprefix("gpt_neox."): (file, name) for name in file.keys()}  # noqa: SIM118
        if "lm_head.weight" in files:
            files["embed_out.weight"] = files.pop("lm_head.weight")

        def read(name):
            file, stored = files[name]
            return file.get_tensor(stored)

        model = gpt_neox.NeoX(config, read, dtype, device, **in_eight_bits)
    if eight_bits:
        model.libraries = ("bitsandbytes",)
    return model


def load_published(folder, precision, device="cpu", context=None, loaded=None):
    """The model of the published protocol's pass: as `load`, but in int8 with the study's outlier threshold.

    It shares its weights with `loaded`, if that is the model of the same checkpoint, precision, device and context.
    """
    model = load(folder, precision, device, context) if loaded is None else copy.copy(loaded)
    model.prefix = None
    if precision != "int8":
        return model
    from bitlaw.models import llm_int8

    return llm_int8.WithOutliers(model, llm_int8.THRESHOLD)
