"""Arrays of other libraries: looked at before they are lent, and made like one another."""

from __future__ import annotations

import sys
from typing import Any, Sequence

from ._core import UserError

Array = Any  # of NumPy, PyTorch, CuPy, or anything else with DLPack


def is_torch(array: Array) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def check(array: Array, name: str) -> None:
    """Refuses what DLPack would lend without a word: bits that are negated or conjugated only when
    they are read, and the other byte order."""
    if is_torch(array):
        if array.is_neg() or array.is_conj():
            raise UserError(
                f"{name} is negated or conjugated lazily, which the kernels do not see: "
                "give .resolve_neg().resolve_conj() of it"
            )
        if array.is_quantized or array.is_sparse or array.device.type == "meta":
            raise UserError(
                f"{name} is quantised, sparse or on the device meta: give a dense tensor"
            )
        return
    dtype = getattr(array, "dtype", None)
    if getattr(dtype, "isnative", True) is False:
        raise UserError(
            f"{name} is in the other byte order than this machine's: "
            "give array.astype(array.dtype.newbyteorder('='))"
        )


def lent(array: Array) -> Array:
    """What the library sees of it: PyTorch's without its gradient, NumPy's as it is."""
    return array.detach() if is_torch(array) and array.requires_grad else array


def _namespace(array: Array) -> Any:
    if is_torch(array):
        return sys.modules["torch"]
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules.get(type(array).__module__.split(".")[0])


def empty(like: Array, shape: Sequence[int], dtype: str | None = None) -> Array:
    """Of the library and on the device of `like`; dtype by its name in that library, or the same."""
    namespace = _namespace(like)
    if namespace is None or not hasattr(namespace, "empty"):
        raise UserError(
            f"arrays of {type(like).__module__} cannot be made here, to hold the outputs: "
            "give them in out="
        )
    wanted = like.dtype if dtype is None else getattr(namespace, dtype)
    if is_torch(like):
        return namespace.empty(tuple(shape), dtype=wanted, device=like.device)
    return namespace.empty(tuple(shape), dtype=wanted)


def contiguous(array: Array) -> Array:
    """The array, or a copy of it whose elements follow each other."""
    if is_torch(array):
        return array.contiguous()
    namespace = _namespace(array)
    make = getattr(namespace, "ascontiguousarray", None)
    return namespace.asarray(array, copy=True) if make is None else make(array)


def placed_like(like: Array, numbers: Array) -> Array:
    """A copy of NumPy's `numbers` in the library and on the device of `like`."""
    namespace = _namespace(like)
    if is_torch(like):
        return namespace.from_numpy(numbers).to(like.device)
    return namespace.asarray(numbers)
