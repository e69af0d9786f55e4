"""A GPU that is not there: tensors that say they are on it, have their values on the host, and do not mix with others.

What a real one refuses is refused: an operation on tensors of two places, unless it copies from one to the other, and
numpy arrays of what is not on the host. Values are those of the processor, so results can be compared.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("meta", 1)
"""Any name that torch takes without a driver; nothing here is on torch's own meta device, which has no number."""
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_}
INDEXES = {aten.index, aten.index_put_, aten.index_put, aten._unsafe_index}
"""Take indices on the host too, but not host values at indices of the GPU."""
JOINS = {aten.cat, aten.stack, aten.mm, aten.addmm, aten.bmm, aten.embedding}
"""Take no number of the host either."""


class OnGpu(torch.Tensor):
    """A tensor of the GPU."""

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> OnGpu:
        with torch.inference_mode(False):  # A view in inference mode is a tensor of the kind that it is a view of.
            return torch.Tensor._make_wrapper_subclass(
                cls,
                host.shape,
                strides=host.stride(),
                storage_offset=host.storage_offset(),
                dtype=host.dtype,
                layout=host.layout,
                device=GPU,
                requires_grad=host.requires_grad,
            )

    def __init__(self, host: torch.Tensor) -> None:
        self.host = host

    def __repr__(self) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} ran outside of pretended_gpu")


@contextmanager
def pretended_gpu():
    """While it is entered, there is a GPU."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter becomes a new object
    try:
        with _Places(), _Numbers():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


class _Numbers(TorchFunctionMode):
    """Makes tensors of numbers on the host and moves them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == GPU:
            del kwargs["device"]
            return func(*args, **kwargs).to(GPU)
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnGpu):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(GPU)
        if func is torch.Tensor.tolist and isinstance(args[0], OnGpu):
            return args[0].host.tolist()
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], numbered(args[1]), *args[2:])
        return func(*args, **kwargs)


class _Places(TorchDispatchMode):
    """Keeps tensors of two places apart."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        check(func, tensors, args)
        asked = kwargs.get("device")
        if asked == GPU:
            kwargs["device"] = torch.device("cpu")
        result = func(*tree_map(on_host, args), **tree_map(on_host, kwargs))
        first = func._schema.arguments[0] if func._schema.arguments else None
        if first is not None and first.alias_info is not None and first.alias_info.is_write:
            return args[0]
        here = any(isinstance(tensor, OnGpu) for tensor in tensors)
        place = here if asked is None else asked == GPU
        return tree_map(on_gpu, result) if place else result


def numbered(index):
    """An index with its lists as tensors of the host."""
    if isinstance(index, tuple):
        return tuple(numbered(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


def check(func, tensors, args) -> None:
    """Refuses to mix places."""
    assert not [tensor for tensor in tensors if tensor.device == GPU and not isinstance(tensor, OnGpu)], "no values"
    there = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    strange = [tensor for tensor in tensors if not isinstance(tensor, OnGpu)]
    packet = func.overloadpacket
    if packet in INDEXES and isinstance(args[0], OnGpu):
        return
    if packet not in JOINS:
        strange = [tensor for tensor in strange if tensor.dim()]
    if there and strange and packet not in COPIES:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in strange)
        raise RuntimeError(f"{func}: expected all tensors on one device, but {shapes} are on the host.")


def on_host(value):
    """What stands for a value on the host."""
    return value.host if isinstance(value, OnGpu) else value


def on_gpu(value):
    """What stands for a value on the GPU."""
    return OnGpu(value) if isinstance(value, torch.Tensor) and not isinstance(value, OnGpu) else value
