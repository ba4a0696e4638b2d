"""The operator spion::attention: registered here, computed by the library in PyTorch's memory and on
its current stream.

    spion::attention(q, k, v, tables, lengths, block, scale, softmax, causal=False, spans=None)
        -> (o, lse)
    spion::attention_backward(d_o, q, k, v, o, lse, tables, lengths, block, scale, softmax,
        causal=False, spans=None) -> (d_q, d_k, d_v)

The plan is found by shape, dtype and device, never by the pattern, which is the int32 tensor
`tables`: one size for a plan, so that torch.compile makes one graph for every pattern and a CUDA
graph may be replayed with other tables in the same memory.

A call of plain tensors goes to the library from the Autograd key at once (_recording.py,
_core.Operator); `call` saves them the dispatcher too, where that has no part in them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad as _forward_ad

from ._passes import backward, empty, empty_lse, forward
from ._plans import Words, check_rank, direct, find
from ._recording import Derivative, Kernels, autocast, register

_WORDS = "int block, float scale, str softmax, bool causal=False, Tensor? spans=None"
_ARGUMENTS = f"Tensor tables, Tensor? lengths, {_WORDS}"
_Maybe = torch.Tensor | None
_Two = tuple[torch.Tensor, torch.Tensor]
_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    lengths: _Maybe,
    block: int,
    scale: float,
    softmax: str,
    causal: bool = False,
    spans: _Maybe = None,
) -> _Two:
    made = direct.forward(q, k, v, tables, lengths, block, scale, softmax, causal, spans)
    if made is not None:
        return made
    plan = find(q, k, v, tables, lengths, spans, Words(block, scale, softmax, causal))
    return forward(plan, q, k, v, tables, lengths, spans)


def _fake(q: torch.Tensor, *rest: Any) -> _Two:
    check_rank(q)
    return empty(q), empty_lse(q)


def _backward(
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    tables: torch.Tensor,
    lengths: _Maybe,
    block: int,
    scale: float,
    softmax: str,
    causal: bool = False,
    spans: _Maybe = None,
) -> _Three:
    made = direct.backward(
        d_o, q, k, v, o, lse, tables, lengths, block, scale, softmax, causal, spans
    )
    if made is not None:
        return made
    plan = find(q, k, v, tables, lengths, spans, Words(block, scale, softmax, causal))
    return backward(plan, d_o, q, k, v, o, lse, tables, lengths, spans)


def _fake_backward(
    d_o: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> _Three:
    return empty(q), empty(k), empty(v)


_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_transforms = torch._C._are_functorch_transforms_active
_traces = torch._C._get_tracing_state
_profiles = torch.autograd._profiler_enabled
_any_autocast = torch._C._is_any_autocast_enabled
_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
_AUTOGRAD = torch._C.DispatchKey.AutogradCPU, torch._C.DispatchKey.AutogradCUDA


_is_compiling, _TENSOR = torch.compiler.is_compiling, torch.Tensor


def _is_unseen(q: Any, k: Any, v: Any, tables: Any, lengths: Any, spans: Any) -> bool:
    """Whether nothing between a call of the operator and its kernel has any part in it: no mode,
    transform, trace or profiler, no subclass, no bit that waits, no dtype that autocast changes.
    (Tensors of devices and layouts that are none of ours are left to the operator by `direct`.)"""
    return (
        type(q) is type(k) is type(v) is type(tables) is _TENSOR
        and (lengths is None or type(lengths) is _TENSOR)
        and (spans is None or type(spans) is _TENSOR)
        and not (_function_modes() or _dispatch_modes() or _transforms() or _profiles())
        and not (q.is_neg() or k.is_neg() or v.is_neg())
        and _traces() is None
        and not _any_autocast()
        and _forward_ad._current_level < 0
    )


def _save(ctx: Any, arguments: tuple[Any, ...], output: _Two) -> None:
    q, k, v, tables, lengths, block, scale, softmax, causal, spans = arguments
    ctx.words = (block, scale, softmax, causal)
    ctx.save_for_backward(q, k, v, *output, tables, lengths, spans)


def _differentiate(ctx: Any, d_o: torch.Tensor, backward: Any) -> _Three:
    q, k, v, o, lse, tables, lengths, spans = ctx.saved_tensors
    return backward(d_o, q, k, v, o, lse, tables, lengths, *ctx.words, spans)


def computed_in(q: torch.Tensor) -> torch.dtype:
    """Under autocast: on a GPU the 16-bit type of q, else that of autocast; on the host float32, the
    one that it computes in."""
    if not q.is_cuda:
        return torch.float32
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.dtype if half else torch.get_autocast_dtype("cuda")


def _register() -> tuple[torch.library.Library, Any]:
    if hasattr(torch.ops.spion, "attention"):
        raise RuntimeError(
            "the operator spion::attention is registered already, by libspion_torch.so or another "
            "copy of this package: a process has one"
        )
    library = torch.library.Library("spion", "DEF")
    library.define(
        f"attention(Tensor q, Tensor k, Tensor v, {_ARGUMENTS}) -> (Tensor o, Tensor lse)"
    )
    library.define(
        "attention_backward(Tensor d_o, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, "
        f"{_ARGUMENTS}) -> (Tensor, Tensor, Tensor)"
    )
    kernels = Kernels(_forward, _backward, _fake, _fake_backward, direct.forward)
    plain = register(library, "attention", kernels, Derivative((0, 1, 2), _save, _differentiate))
    autocast(library, "attention", 3, computed_in)
    return library, plain


_library, _Plain = _register()  # the operators live as long as the library
dispatched = torch.ops.spion.attention.default  # the way of `call` to it


class _Elsewhere(Exception):
    """The library's direct way does not take this call."""


class _Unseen(_Plain):  # type: ignore[misc, valid-type]
    """Of tensors that the dispatcher has not seen."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, arguments: tuple[Any, ...]) -> Any:
        made = direct.forward(*arguments)
        if made is None:
            raise _Elsewhere
        ctx.mark_non_differentiable(made[1])
        ctx.set_materialize_grads(False)
        _save(ctx, arguments, made)
        return made


def call(
    q: Any,
    k: Any,
    v: Any,
    tables: Any,
    lengths: Any,
    block: int,
    scale: float,
    softmax: str,
    causal: bool,
    spans: Any,
) -> Any:
    """The operator, of all its arguments; around PyTorch's dispatcher where that has no part. (They are
    spelt out, as a tuple of them is made and taken apart again at each call.)"""
    if not _is_compiling() and _is_unseen(q, k, v, tables, lengths, spans):
        if not (
            (q.requires_grad or k.requires_grad or v.requires_grad) and torch.is_grad_enabled()
        ):
            made = direct.forward(q, k, v, tables, lengths, block, scale, softmax, causal, spans)
            if made is not None:
                return made
        # Not within a kernel of another operator, which records by itself.
        elif not _excluded(_AUTOGRAD[q.is_cuda]):
            given = (q, k, v, tables, lengths, block, scale, softmax, causal, spans)
            try:
                return _Unseen.apply(q, k, v, given)
            except _Elsewhere:
                pass
    return dispatched(q, k, v, tables, lengths, block, scale, softmax, causal, spans)
