"""Whether a loaded model is autoregressive in the two ways that coding relies on.

Its logits must not depend on later tokens: a decoder does not have them. And single steps with a cache must give the
logits of one pass: some classes of transformers accept a cache and ignore it, so that a step sees one token only and
streams are coded without their context, which no decoder would notice. Such models go on without a cache.
"""

import logging

import torch

from bitlaw import InputError

log = logging.getLogger("bitlaw")

LENGTH = 48  # tokens of the text; more where the model has a window, to pass its end
LONGEST_WINDOW = 4096  # the text does not pass the end of a longer one
# settings that name the length of one; a recurrent model sums blocks of `chunk_size`
WINDOWS = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size")
WINDOWS += ("chunk_size", "mamba_chunk_size")
STEPS = 8  # made one by one from each start
# How far logits may lie apart, as root mean square over the vocabulary in units of their spread there. Two ways to
# compute the same stay far below; a step without its context is off by about 1 in a trained model.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.2}


def check(model, folder):
    """Raise InputError, one line that names `folder`, what differs and the remedy, unless `model` is autoregressive.

    model: a `transformers_lm.Generic`. Two passes over a fixed text and 24 single steps; where these give other logits
    with a cache than in one pass, `model.cached` is set to false, a line says so, and they are tried again.
    """
    name = f"{folder}: {model.config.model_type}"
    ids = _text(model)
    length = ids.shape[1]
    try:
        whole = _logits(model, ids)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # whatever a class says to settings that it cannot compute, or that lacks a package
        raise InputError(f"{name}: a pass through it fails ({_reason(error)}); choose another model") from error
    if not torch.isfinite(whole).all():
        raise InputError(f"{name}: its logits are not finite at {model.dtype}: choose fp32, or fetch it again")

    changed = ids.clone()
    later = max(1, length // 2)
    changed[:, later:] = (ids[:, later:] + 1) % model.vocabulary
    off = _apart(_logits(model, changed), whole)[:later]
    if not off.max() <= TOLERANCE[model.dtype]:
        raise InputError(
            f"{name}: a later token changes the logits of earlier ones (position {int(off.argmax())}: by "
            f"{off.max():.2g} of their spread), so it cannot be decoded: choose a causal model, or set is_decoder in "
            "config.json if it is one"
        )
    starts = sorted({1, length // 2, length - STEPS} & {*range(1, length)})

    def what_is_wrong():
        return next(filter(None, (_wrong_steps(model, ids, start, whole) for start in starts)), None)

    wrong = what_is_wrong()
    if wrong and model.cached:
        log.warning("%s: %s; so each step passes all tokens before it again, which takes long", name, wrong)
        model.cached = False
        wrong = what_is_wrong()
    if wrong:
        raise InputError(f"{name}: {wrong}: choose a causal model whose steps give what one pass gives")


def _wrong_steps(model, ids, start, whole):
    """What is wrong with single steps from position `start`, in a few words; None if they give the logits `whole`."""
    try:
        stepped = _steps(model, ids, start)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # whatever a class says to a cache that it does not know
        return f"single steps with a cache fail ({_reason(error)})"
    off = _apart(stepped, whole[start : start + STEPS])
    # most of them: where two experts are as good as equal, rounding may choose the other at a position
    if not off.median() <= TOLERANCE[model.dtype]:
        return (
            f"single steps with a cache give other logits than one pass (positions from {start}: by "
            f"{off.median():.2g} of their spread)"
        )
    return None


def _reason(error):
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _text(model):
    """Ids, int64 `[1, length]`, of a fixed text of every kind of token."""
    windows = [getattr(model.config, name, None) for name in WINDOWS]
    longest = max((w for w in windows if isinstance(w, int) and w <= LONGEST_WINDOW), default=0)
    length = min(model.context, max(LENGTH, longest + 2 * STEPS))
    return (torch.arange(length)[None] * 7919 + 13) % model.vocabulary


def _logits(model, ids):
    """Logits, float32 `[length, vocabulary]`, of one pass over `ids`."""
    return model.head(model.hidden(ids)[0])


def _steps(model, ids, start):
    """Logits, float32 `[STEPS, vocabulary]`, of the tokens from `start` on, each in a step after those before it.

    Beside another text, as some classes mix the rows of a batch in their steps.
    """
    both = torch.cat((ids, ids.flip(1)))
    cache = model.new_cache(2, ids.shape[1])
    model.hidden(both[:, :start], cache, 0)
    found = []
    for i in range(start, min(start + STEPS, ids.shape[1])):
        states = model.hidden(both[:, i : i + 1], cache, i)
        if states.shape[:2] != (2, 1):
            raise ValueError(f"two rows of a token each give {list(states.shape)}")
        found.append(model.head(states[0]))
    return torch.cat(found)


def _apart(logits, expected):
    """How far rows of logits lie apart, in units of the expected rows' spread, float32 `[rows]`."""
    apart = (logits - expected).square().mean(-1).sqrt()
    return torch.where(apart == 0, apart, apart / expected.std(-1))
