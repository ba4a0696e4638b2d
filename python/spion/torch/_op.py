"""The operator spion::attention: registered here, computed by the library in PyTorch's memory and on
its current stream.

    spion::attention(q, k, v, tables, lengths, block, scale, softmax, causal=False, spans=None)
        -> (o, lse)
    spion::attention_backward(d_o, q, k, v, o, lse, tables, lengths, block, scale, softmax,
        causal=False, spans=None) -> (d_q, d_k, d_v)

The plan is found by shape, dtype and device, never by the pattern, which is the int32 tensor
`tables`: one size for a plan, so that torch.compile makes one graph for every pattern and a CUDA
graph may be replayed with other tables in the same memory.

A call of plain tensors goes to the library from the Autograd key at once (_core.Operator), without
another pass through the dispatcher. Everything else, fake and traced tensors, subclasses, lazy bits
and functorch's transforms, is sent on to the keys below, as torch.library does it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad as _forward_ad

from .._core import UserError
from ._passes import backward, empty, empty_lse, forward
from ._plans import Words, check_rank, direct, find

_WORDS = "int block, float scale, str softmax, bool causal=False, Tensor? spans=None"
_ARGUMENTS = f"Tensor tables, Tensor? lengths, {_WORDS}"
_Maybe = torch.Tensor | None
_Two = tuple[torch.Tensor, torch.Tensor]
_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _bits(*names: str) -> int:
    bits = 0
    for name in names:
        key = getattr(torch._C.DispatchKey, name)
        bits |= torch._C.DispatchKeySet(key).raw_repr()
    return bits


# Keys other than those of dense tensors of the host and of CUDA.
_SPECIAL = ~_bits(
    "CPU",
    "CUDA",
    "AutogradCPU",
    "AutogradCUDA",
    "ADInplaceOrView",
    "AutocastCPU",
    "AutocastCUDA",
    "BackendSelect",
)


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


def _is_unseen(q: Any, k: Any, v: Any, rest: tuple[Any, ...]) -> bool:
    """Whether nothing between a call of the operator and its kernel has any part in it: no mode,
    transform, trace or profiler, no subclass, no bit that waits, no dtype that autocast changes.
    (Tensors of devices and layouts that are none of ours are left to the operator by `direct`.)"""
    plain = torch.Tensor
    tables, lengths, *_, spans = rest
    return (
        type(q) is type(k) is type(v) is type(tables) is plain
        and (lengths is None or type(lengths) is plain)
        and (spans is None or type(spans) is plain)
        and not (_function_modes() or _dispatch_modes() or _transforms() or _profiles())
        and not (q.is_neg() or k.is_neg() or v.is_neg())
        and _traces() is None
        and not _any_autocast()
        and _forward_ad._current_level < 0
    )


def _below_autograd(operator: Any, keys: Any, *args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return operator.redispatch(keys & torch._C._after_autograd_keyset, *args)


def _save(ctx: Any, inputs: tuple[Any, ...], output: _Two) -> None:
    """inputs: all ten of the operator."""
    q, k, v, tables, lengths, block, scale, softmax, causal, spans = inputs
    ctx.words = (block, scale, softmax, causal)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output, tables, lengths, spans)


def _differentiate(ctx: Any, d_o: _Maybe, plain: bool) -> tuple[_Maybe, ...]:
    """Of q, k and v."""
    if d_o is None:
        return None, None, None
    q, k, v, o, lse, tables, lengths, spans = ctx.saved_tensors
    if plain:
        special = torch._C._dispatch_keys(d_o).raw_repr() & _SPECIAL
        plain = not (special or _dispatch_modes() or torch.is_grad_enabled())
    call = _backward if plain else _backward_operator
    return call(d_o, q, k, v, o, lse, tables, lengths, *ctx.words, spans)


class _Plain(torch.autograd.Function):
    """Of plain tensors. What follows v comes as one tuple: PyTorch looks at each argument's kind."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, rest: tuple[Any, ...]) -> Any:
        made = _forward(q, k, v, *rest)
        _save(ctx, (q, k, v, *rest), made)
        return made

    @staticmethod
    def backward(ctx: Any, d_o: _Maybe, _: None) -> Any:
        return *_differentiate(ctx, d_o, plain=True), None


class _Traced(torch.autograd.Function):
    """Of all others: to the keys below Autograd."""

    @staticmethod
    def forward(keys: Any, *args: Any) -> Any:
        return _below_autograd(_operator, keys, *args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _save(ctx, inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, d_o: _Maybe, _: None) -> Any:
        return None, *_differentiate(ctx, d_o, plain=False), *(None,) * 7


class _Once(torch.autograd.Function):
    """The gradients, which have none of their own."""

    @staticmethod
    def forward(keys: Any, *args: Any) -> Any:
        return _below_autograd(_backward_operator, keys, *args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise UserError(
            "attention cannot be differentiated twice: its backward pass has no gradient of its own"
        )


def _refuse_tangents(*operands: torch.Tensor) -> None:
    for x in operands:
        if _forward_ad.unpack_dual(x).tangent is not None:
            raise UserError(
                "attention has no derivative in forward mode (jvp): use backward(), or detach what is "
                "given to it"
            )


def _records(q: Any, k: Any, v: Any) -> bool:
    return (q.requires_grad or k.requires_grad or v.requires_grad) and torch.is_grad_enabled()


def _attention_autograd(
    keys: Any,
    q: Any,
    k: Any,
    v: Any,
    tables: Any,
    lengths: Any,
    block: int,
    scale: float,
    softmax: str,
    causal: bool = False,
    spans: Any = None,
) -> Any:
    rest = (tables, lengths, block, scale, softmax, causal, spans)
    if _forward_ad._current_level >= 0:
        _refuse_tangents(q, k, v)
    if keys.raw_repr() & _SPECIAL:
        if _records(q, k, v):
            return _Traced.apply(keys, q, k, v, *rest)
        return _below_autograd(_operator, keys, q, k, v, *rest)
    return _Plain.apply(q, k, v, rest) if _records(q, k, v) else _forward(q, k, v, *rest)


class _Elsewhere(Exception):
    """The library's direct way does not take this call."""


class _Unseen(_Plain):
    """Of tensors that the dispatcher has not seen."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, rest: tuple[Any, ...]) -> Any:
        made = direct.forward(q, k, v, *rest)
        if made is None:
            raise _Elsewhere
        _save(ctx, (q, k, v, *rest), made)
        return made


def call(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    """The operator, of all its ten arguments; around PyTorch's dispatcher where that has no part."""
    if torch.compiler.is_compiling() or not _is_unseen(q, k, v, rest):
        return dispatched(q, k, v, *rest)
    if not _records(q, k, v):
        made = direct.forward(q, k, v, *rest)
        return dispatched(q, k, v, *rest) if made is None else made
    # Not within a kernel of another operator, which records by itself.
    if _excluded(_AUTOGRAD[q.is_cuda]):
        return dispatched(q, k, v, *rest)
    try:
        return _Unseen.apply(q, k, v, rest)
    except _Elsewhere:
        return dispatched(q, k, v, *rest)


def _backward_autograd(keys: Any, *args: Any) -> Any:
    if torch.is_grad_enabled() and any(x.requires_grad for x in args[:6]):
        return _Once.apply(keys, *args)
    if keys.raw_repr() & _SPECIAL:
        return _below_autograd(_backward_operator, keys, *args)
    return _backward(*args)


def _autocast(device: str) -> Any:
    """On a GPU to the 16-bit type of q, else that of autocast; on the host to float32, the one that
    it computes in."""
    key = (
        torch._C.DispatchKey.AutocastCUDA if device == "cuda" else torch._C.DispatchKey.AutocastCPU
    )
    without = torch._C.DispatchKeySet(key)

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> Any:
        if device == "cpu":
            dtype = torch.float32
        else:
            half = q.dtype in (torch.bfloat16, torch.float16)
            dtype = q.dtype if half else torch.get_autocast_dtype(device)
        with torch._C._ExcludeDispatchKeyGuard(without):
            return _operator(q.to(dtype), k.to(dtype), v.to(dtype), *rest)

    return call


def _register() -> torch.library.Library:
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
    for key in ("CPU", "CUDA"):
        library.impl("attention", _forward, key)
        library.impl("attention_backward", _backward, key)
        library.impl("attention", _autocast(key.lower()), f"Autocast{key}")
    library.impl("attention", _attention_autograd, "Autograd", with_keyset=True)
    library.impl("attention_backward", _backward_autograd, "Autograd", with_keyset=True)
    torch.library.register_fake("spion::attention", _fake, lib=library)
    torch.library.register_fake("spion::attention_backward", _fake_backward, lib=library)
    return library


_library = _register()  # lives as long as the operator
_operator = torch.ops.spion.attention.default
_backward_operator = torch.ops.spion.attention_backward.default
dispatched = _operator  # the way of `call` to it
