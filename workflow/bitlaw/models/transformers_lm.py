"""Any causal language model that transformers loads, with the interface of `gpt_neox.NeoX`.

Its one-shot and step-by-step passes need not agree to the last bit, so streams are coded in lock-step:
encoder and decoder make the same calls (see `compression.codec`).
"""

import inspect

import torch

from bitlaw import InputError
from bitlaw.models import contexts, sizes

CACHES = ("past_key_values", "cache_params", "state")  # what forward takes, of one family or another


class Cache:
    """What a model keeps of the tokens before: transformers' own object, or, for a model without one, the tokens."""

    def __init__(self, kept):
        self.kept = kept


class Generic:
    """A transformers model; `hidden` already yields logits and `head` only converts them to float32.

    `context`: positions of a window, where another number than config.json's is wanted. Where `cached` is set to false
    every step passes all tokens before it again.
    """

    prefix = given_context = None  # see `checkpoint.load`
    libraries = ("transformers",)  # beside torch, that decide which kernels it calls

    def __init__(self, folder, dtype=torch.float32, device="cpu", context=None):
        model, self.config = _loaded(folder, dtype)
        self.model = model.eval().to(device)
        self.dtype, self.device = dtype, torch.device(device)
        self.architecture = f"{self.config.model_type} in transformers"
        head = self.model.get_output_embeddings()
        if not hasattr(head, "weight"):
            raise InputError(f"{folder}: {self.config.model_type} has no head over a vocabulary; choose a causal model")
        self.vocabulary = head.weight.shape[0]
        self.width = self.vocabulary
        self.context = contexts.of_transformers(self.model, context, folder)
        takes = inspect.signature(self.model.forward).parameters
        self._takes = next((name for name in CACHES if name in takes), None)
        self.cached = self._takes is not None
        self._first = contexts.first_position(self.model) if "position_ids" in takes else None

    def new_cache(self, batch, length):
        """An empty cache for `hidden`; the model makes its own at the first pass, and it grows as needed."""
        return Cache(None if self.cached else torch.empty((batch, 0), dtype=torch.int64))

    @torch.inference_mode()
    def hidden(self, ids, cache=None, past=0):
        """Logits `[batch, length, vocabulary]` of `ids`, int64 `[batch, length]`, at positions from `past`.

        `cache` (from `new_cache`) holds the `past` positions before and receives the new ones.
        """
        if cache is None:
            return self._pass(ids, 0, use_cache=False).logits
        if not self.cached:
            cache.kept = torch.cat((cache.kept, ids), 1)
            return self._pass(cache.kept, 0, use_cache=False).logits[:, past:]
        given = {} if cache.kept is None else {self._takes: cache.kept}
        found = self._pass(ids, past, use_cache=True, **given)
        if (kept := getattr(found, self._takes, None)) is not None:
            cache.kept = kept
        return found.logits

    def _pass(self, ids, past, **given):
        if self._first is not None:
            first = self._first + past
            given["position_ids"] = torch.arange(first, first + ids.shape[1], device=self.device).expand(len(ids), -1)
        return self.model(ids.to(self.device), **given)

    def head(self, rows, out=None):
        """`rows`, logits already, in float32."""
        return rows.float()


def _loaded(folder, dtype):
    """(model, its configuration or that of its text part)."""
    from transformers import AutoModelForCausalLM

    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
        config = model.config.get_text_config()
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # whatever its classes say to a configuration that cannot be
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: transformers makes no causal language model of its config.json ({reason})"
        ) from None
    if missing := sorted(loaded["missing_keys"]):  # transformers would go on with random numbers
        raise InputError(f"{folder}: the checkpoint lacks {missing[0]} ({len(missing)} in all); fetch it again")
    for name, found, expected in sorted(loaded["mismatched_keys"]):
        sizes.compare(folder, {name: expected}, {name: found})
    if many := sizes.layers_too_many(loaded["unexpected_keys"], model.state_dict()):
        sizes.compare(folder, {}, {many[0]: None})
    return model, config
