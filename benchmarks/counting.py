"""What a GPU would do, counted without one: operations of torch on the meta device, where tensors have shapes only.

`with Counter() as counted: ...` notes for every operation that would start a kernel its bytes read and written and its
multiplications, and the largest sum of the memory of all tensors made. Composite operations count as what they are
made of, attention (scaled_dot_product_attention) as the one kernel that it is on a GPU. Meta tensors have no values:
whatever asks for one (.item(), bool(), .cpu(), nonzero) and so would wait for a GPU raises `Waits`; an operation on
tensors of two devices raises `TwoDevices`.
"""

import weakref
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# operations that start no kernel: they look at memory that is there, or take some
FREE = {
    *("view", "_unsafe_view", "expand", "transpose", "t", "slice", "select", "unbind", "split", "unsqueeze", "alias"),
    *("detach", "permute", "squeeze", "as_strided", "split_with_sizes", "_reshape_alias", "empty", "empty_like"),
    *("empty_strided", "new_empty", "lift_fresh"),
}
# those that start more than one: counted are zeros and a copy; a product and its scaling; flags, sums and a choice
SEVERAL = {"constant_pad_nd": 2, "int8_scaled_mm": 2, "nonzero_static": 3}
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique_dim", "_unique2"}
PICKS = {"embedding", "index_select", "gather", "index"}  # read of their first tensor as much as they write
WRITES = {"copy_", "fill_", "zero_", "full_like", "ones_like", "zeros_like"}  # do not read their first tensor
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "_int_mm", "int8_scaled_mm"}


class Waits(AssertionError):
    """The host asked for the value of a tensor in the middle of a pass."""


class TwoDevices(AssertionError):
    """An operation met tensors of two devices."""


class Kernel(NamedTuple):
    """One operation: its name, kernels that it starts, bytes, and operations (two for each multiplication of a
    product) in floating point and in eight bits."""

    name: str
    starts: int
    bytes: int
    flops: int
    int8: int


class Counter(TorchDispatchMode):
    """See the module. `kernels`: list of Kernel; `peak`: bytes of the largest moment, beyond what was there before."""

    def __init__(self, device="meta"):
        super().__init__()
        self.device, self.kernels, self.live, self.peak, self._known = device, [], 0, 0, {}

    @property
    def starts(self):
        return sum(kernel.starts for kernel in self.kernels)

    @property
    def bytes(self):
        return sum(kernel.bytes for kernel in self.kernels)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        if name == "scaled_dot_product_attention":
            return self._attention(*args, **kwargs)
        with self:
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        self._check(name, given, kwargs)
        found = func(*args, **kwargs)
        made = [t for t in tree_leaves(found) if isinstance(t, torch.Tensor)]
        here = [t for t in made if t.device.type == self.device]
        old = {t.untyped_storage()._cdata for t in given}
        for tensor in here:
            if tensor.untyped_storage()._cdata not in old:
                self._hold(tensor)
        if here and name.rstrip("_") not in FREE and name not in FREE:
            self._note(name, args, given, here, func._schema.is_mutable)
        return found

    def _check(self, name, given, kwargs):
        here = {t.device.type for t in given if t.dim() or t.device.type == self.device}
        target = kwargs.get("device")
        leaves = name == "_to_copy" and target is not None and torch.device(target).type != self.device
        by_flags = name in ("index", "index_put_") and any(
            t.dtype == torch.bool for t in given[1:]
        )  # counts them first
        if self.device in here and (name in WAITS or leaves or by_flags):
            raise Waits(name)
        if len(here) > 1:
            if name == "copy_" and given[0].device.type != self.device:
                raise Waits(name)
            if name != "copy_":
                raise TwoDevices(name)

    def _note(self, name, args, given, made, in_place):
        written = sum(map(_size, made))
        if name in PICKS:
            read = written + sum(map(_size, given[1:]))
        elif name in WRITES:
            read = sum(map(_size, given[1:]))
        else:
            read = sum(map(_size, given)) - (written if in_place and name in PRODUCTS else 0)
        flops = int8 = 0
        if name in PRODUCTS:
            first, second = [t for t in given if t.dim() >= 2 and not (t is given[0] and name in ("addmm", "baddbmm"))][
                :2
            ]
            outputs = second.shape[0] if name == "int8_scaled_mm" else second.shape[-1]
            flops, int8 = 2 * first.numel() * outputs, 0
            if first.dtype == torch.int8:
                flops, int8 = 0, flops
        self.kernels.append(Kernel(name, SEVERAL.get(name, 1), read + written, flops, int8))

    def _attention(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **kwargs):
        """One kernel: reads queries, keys and values, writes weighted sums; a causal one leaves out what is masked."""
        *_, rows, size = query.shape
        found = torch.empty(*query.shape[:-1], value.shape[-1], dtype=query.dtype, device=query.device)
        self._hold(found)
        seen = rows * (rows + 1) / 2 if is_causal else rows * key.shape[-2]
        flops = int(4 * query.numel() // (rows * size) * seen * size)
        moved = sum(map(_size, filter(lambda t: t is not None, (query, key, value, attn_mask, found))))
        self.kernels.append(Kernel("attention", 1, moved, flops, 0))
        return found

    def _hold(self, tensor):
        storage = tensor.untyped_storage()
        if (key := storage._cdata) in self._known:
            return
        size = -(-storage.nbytes() // 512) * 512  # what torch's allocator rounds up to
        self._known[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key)

    def _release(self, key):
        self.live -= self._known.pop(key, 0)


def _size(tensor):
    """Bytes of the different elements of a tensor: an axis of stride 0 repeats one."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()
