"""How many positions a floating-point model of transformers has: from its configuration, or as a study says."""

from bitlaw import InputError

KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "context_length", "max_target_positions")
# states without positions have no end; these families' configurations name no length, and this one holds any chunk
RECURRENT = ("falcon_mamba", "mamba", "mamba2", "recurrent_gemma", "xlstm")
OF_RECURRENT = 2048
LONGEST = 1 << 17


def of_transformers(model, given, where):
    """Positions of a window of `model` (a transformers model); `given`: as a study's entry says, or None.

    `where` is the folder that a refusal names. Raises InputError where neither says how many there are, and where more
    are given than the configuration has.
    """
    own = _own(model.config.get_text_config())
    if own is None and not given:
        raise InputError(
            f"{where}/config.json: has none of {', '.join(KEYS)}; give the model's entry the key `context`, or add "
            "max_position_embeddings: the number of tokens that it was trained on"
        )
    rows = [table.num_embeddings - first for table, first in _tables(model)]
    own = min(own or given, LONGEST, *rows)
    return chosen(own if model.config.model_type not in RECURRENT else max(own, given or 0), given, where)


def chosen(own, given, where):
    """`given` positions if there are so many, `own` if None are given; InputError where they are more."""
    if given and given > own:
        raise InputError(f"{where}: context {given} given, but the model has {own} positions: give {own} or less")
    return given or own


def _own(config):
    """What a configuration of transformers says, or None."""
    found = next((value for key in KEYS if _is_length(value := getattr(config, key, None))), None)
    if found is None and config.model_type in RECURRENT:
        return OF_RECURRENT
    # beyond its original context such a scaling turns earlier positions by other angles, too: no decoder could know
    rope = getattr(config, "rope_parameters", None) or {}
    for scaling in (rope, *(inner for inner in rope.values() if isinstance(inner, dict))):
        kind = scaling.get("rope_type", scaling.get("type"))
        original = scaling.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        if kind in ("longrope", "dynamic") and _is_length(original):
            found = min(found or original, original)
    return found


def first_position(model):
    """The number of the first position where tables begin behind a row of padding (RoBERTa's), or None.

    Such models would count positions by themselves, leaving out tokens that are their padding: not so in a step.
    """
    return next((first for _, first in _tables(model) if first), None)


def _tables(model):
    """(table of learned positions, its row of the first position), of each that a model of transformers has."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in ("position_embeddings", "wpe"):
            yield module, 0 if module.padding_idx is None else module.padding_idx + 1


def _is_length(value):
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
