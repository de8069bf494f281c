"""How many tokens may pass through a model at once on a CUDA device: from its free memory, by a trial."""

import torch

LARGEST = 1 << 16  # more at once gains nothing
SHARE = 0.7  # of the free memory; the rest is for logits and their intervals, and for fragments


def tokens_at_a_time(model, longest):
    """Tokens of one pass of windows of up to `longest` tokens, at least one window.

    Measures what one window takes on the model's device (the time of one pass) and divides the free memory by it.
    """
    device = model.device
    ids = torch.zeros((1, longest), dtype=torch.int64)
    model.hidden(ids)  # what the libraries allocate once and keep
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model.hidden(ids)
    window = max(1, torch.cuda.max_memory_allocated(device) - before)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(int(SHARE * free / window), LARGEST // longest)) * longest
