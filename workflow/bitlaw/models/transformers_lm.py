"""Any causal language model that transformers loads, with the interface of `gpt_neox.NeoX`.

Its one-shot and step-by-step passes need not agree to the last bit, so streams are coded in lock-step:
encoder and decoder make the same calls (see `compression.codec`).
"""

import inspect

import torch

from bitlaw import InputError
from bitlaw.models import sizes


class Generic:
    """A transformers model; `hidden` already yields logits and `head` only converts them to float32."""

    def __init__(self, folder, dtype=torch.float32, device="cpu"):
        from transformers import AutoModelForCausalLM

        try:
            model, loaded = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
            )
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
        self.model = model.eval().to(device)
        self.dtype, self.device = dtype, torch.device(device)
        self.config = model.config.get_text_config()
        self.architecture = f"{self.config.model_type} in transformers"
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.width = self.vocabulary
        self.context = getattr(self.config, "max_position_embeddings", None)
        if not self.context:
            raise InputError(
                f"{folder}/config.json: no max_position_embeddings; bitlaw needs the length of the context"
            )
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def new_cache(self, batch, length):
        """An empty cache for `hidden`; transformers grows it as needed."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    @torch.inference_mode()
    def hidden(self, ids, cache=None, past=0):
        """Logits `[batch, length, vocabulary]` of `ids`, int64 `[batch, length]`, at positions from `past`."""
        ids = ids.to(self.device)
        more = {}
        if self._takes_positions:
            more["position_ids"] = torch.arange(past, past + ids.shape[1], device=self.device).expand(len(ids), -1)
        return self.model(ids, past_key_values=cache, use_cache=cache is not None, **more).logits

    def head(self, rows, out=None):
        """`rows`, logits already, in float32."""
        return rows.float()
