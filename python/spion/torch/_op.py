"""The operator spion::attention: registered here, computed by the library in PyTorch's memory and on
its current stream.

    spion::attention(q, k, v, tables, lengths, block, scale, softmax) -> (o, lse)
    spion::attention_backward(d_o, q, k, v, o, lse, tables, lengths, block, scale, softmax)
        -> (d_q, d_k, d_v)

The plan is found by shape, dtype and device, never by the pattern, which is the int32 tensor
`tables`: one size for a plan, so that torch.compile makes one graph for every pattern and a CUDA
graph may be replayed with other tables in the same memory.
"""

from __future__ import annotations

from typing import Any

import torch

from .._context import canonical
from .._core import UserError
from .._pattern import Pattern
from .._plan import BACKWARD, FORWARD, Attention, Plan
from .._context import context as _context

_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_ARGUMENTS = "Tensor tables, Tensor? lengths, int block, float scale, str softmax"

# By device, dtype, [H, L, D], block, scale, softmax, whether keys are padded, and numbers of tables.
_plans: dict[tuple[Any, ...], Plan] = {}


def _key(
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    block: int,
    scale: float,
    softmax: str,
    padded: bool,
    numbers: int,
) -> tuple[Any, ...]:
    return (device, dtype, shape, block, scale, softmax, padded, numbers)


def _with_index(device: torch.device | str) -> torch.device:
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _check(device: torch.device, dtype: torch.dtype) -> None:
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"tensors are on {device}: spion computes on cpu and cuda")
    if dtype not in _DTYPES:
        raise UserError(
            f"tensors are of {dtype}: attention computes in float32, bfloat16 and float16; convert "
            "them"
        )


def plan(
    *,
    heads: int,
    head_dim: int,
    length: int,
    block: int = 64,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    scale: float = 0.0,
    softmax: str = "masked",
    key_padding: bool = False,
    typical: Pattern | None = None,
    max_blocks: int = 0,
    batch: int = 0,
) -> Plan:
    """The plan that the operator takes for tensors [B, heads, length, head_dim]; made, and its
    kernels compiled, if there is none yet. Call it before a CUDA graph is captured, and to give
    `typical` or `max_blocks`; spion.plan says what they are."""
    where = _with_index(device)
    _check(where, dtype)
    attention = Attention(
        heads, head_dim, length, block, _DTYPES[dtype], float(scale), softmax, key_padding
    )
    made = Plan(
        attention,
        _context(canonical(where)),
        typical=typical,
        max_blocks=max_blocks,
        batch=batch,
    )
    shape = (heads, length, head_dim)
    numbers = made.table_bytes // 4
    key = _key(where, dtype, shape, block, float(scale), softmax, key_padding, numbers)
    return _plans.setdefault(key, made)


def _find(
    q: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor | None,
    block: int,
    scale: float,
    softmax: str,
) -> Plan:
    _, heads, length, width = q.shape
    key = (
        q.device,
        q.dtype,
        (heads, length, width),
        block,
        scale,
        softmax,
        lengths is not None,
        tables.shape[0],
    )
    found = _plans.get(key)
    return found if found is not None else _make(q, tables, lengths, block, scale, softmax)


def _make(
    q: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor | None,
    block: int,
    scale: float,
    softmax: str,
) -> Plan:
    made = plan(
        heads=q.shape[1],
        head_dim=q.shape[3],
        length=q.shape[2],
        block=block,
        dtype=q.dtype,
        device=q.device,
        scale=scale,
        softmax=softmax,
        key_padding=lengths is not None,
    )
    if tables.ndim != 1 or tables.shape[0] * 4 != made.table_bytes:
        raise UserError(
            f"the tables have shape {tuple(tables.shape)} and a plan for these tensors takes "
            f"[{made.table_bytes // 4}]: make them by spion.torch.tables, after spion.torch.plan if "
            "they are for other max_blocks"
        )
    return made


def _readable(x: torch.Tensor) -> torch.Tensor:
    """As kernels read it: D contiguous, and on a GPU rows, heads and samples at 16 bytes."""
    if x.stride(3) != 1:
        return x.contiguous()
    if x.is_cuda:
        size = x.element_size()
        batch, head, row, _ = x.stride()
        if x.data_ptr() % 16 or batch * size % 16 or head * size % 16 or row * size % 16:
            return x.clone(memory_format=torch.contiguous_format)
    return x


def _rank(q: torch.Tensor) -> None:
    if q.ndim != 4:
        raise UserError(f"q has shape {tuple(q.shape)}: give tensors [B, H, L, D]")


def _workspace(plan: Plan, like: torch.Tensor, which: int) -> torch.Tensor | None:
    if not like.is_cuda:
        return None
    needed, _ = plan.core.workspace(like.shape[0], which)
    return torch.empty(needed, dtype=torch.uint8, device=like.device)


def _forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor | None,
    block: int,
    scale: float,
    softmax: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    _rank(q)
    plan = _find(q, tables, lengths, block, scale, softmax)
    o, lse = _empty_forward(q)
    plan.core.forward(
        _readable(q),
        _readable(k),
        _readable(v),
        o,
        lse,
        tables,
        lengths,
        _workspace(plan, q, FORWARD),
        True,
        None,
    )
    return o, lse


def _empty_forward(q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of q's strides if its rows are dense, else contiguous."""
    dense = q.stride(3) == 1
    o = torch.empty_like(q) if dense else torch.empty_like(q, memory_format=torch.contiguous_format)
    return o, q.new_empty(q.shape[:3], dtype=torch.float32)


def _fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor | None,
    block: int,
    scale: float,
    softmax: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    _rank(q)
    return _empty_forward(q)


def _backward(
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor | None,
    block: int,
    scale: float,
    softmax: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    plan = _find(q, tables, lengths, block, scale, softmax)
    gradients = tuple(_empty_forward(x)[0] for x in (q, k, v))
    plan.core.backward(
        _readable(d_o),
        _readable(q),
        _readable(k),
        _readable(v),
        o,
        lse,
        *gradients,
        tables,
        lengths,
        _workspace(plan, q, BACKWARD),
        True,
        None,
    )
    return gradients


def _fake_backward(
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    return tuple(_empty_forward(x)[0] for x in (q, k, v))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, tables, lengths, ctx.block, ctx.scale, ctx.softmax = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output, tables, lengths)


def _differentiate(ctx: Any, d_o: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
    if d_o is None:
        return (None,) * 8
    q, k, v, o, lse, tables, lengths = ctx.saved_tensors
    gradients = torch.ops.spion.attention_backward(
        d_o, q, k, v, o, lse, tables, lengths, ctx.block, ctx.scale, ctx.softmax
    )
    return (*gradients, None, None, None, None, None)


def _refuse_lse(gradient: torch.Tensor) -> None:
    raise UserError(
        "lse has no gradient here, and a loss depends on it: use lse.detach(), or o alone"
    )


def _refuse_twice(ctx: Any, *gradients: torch.Tensor | None) -> None:
    raise UserError(
        "attention cannot be differentiated twice: its backward pass has no gradient of its own"
    )


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
            return torch.ops.spion.attention(q.to(dtype), k.to(dtype), v.to(dtype), *rest)

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
    torch.library.register_fake("spion::attention", _fake, lib=library)
    torch.library.register_fake("spion::attention_backward", _fake_backward, lib=library)
    torch.library.register_autograd(
        "spion::attention", _differentiate, setup_context=_save, lib=library
    )
    torch.library.register_autograd("spion::attention_backward", _refuse_twice, lib=library)
    return library


_library = _register()  # lives as long as the operator


def tables(pattern: Pattern, plan: Plan) -> torch.Tensor:
    """The pattern's index tables for the operator, on the plan's device: int32 [table_bytes / 4]."""
    return torch.from_numpy(plan.tables(pattern)).to(plan.context.name)


def attention_with_lse(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: Pattern,
    *,
    lengths: torch.Tensor | None = None,
    scale: float = 0.0,
    softmax: str = "masked",
) -> tuple[torch.Tensor, torch.Tensor]:
    """As attention; also lse [B, H, L] float32, the logarithm of each row's softmax sum. A loss that
    depends on lse is refused when it is differentiated; in a compiled graph, as of the operator
    itself, lse counts as a constant."""
    _rank(q)
    _check(q.device, q.dtype)
    dtype = q.dtype
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.float32 if q.device.type == "cpu" else torch.get_autocast_dtype("cuda")
        dtype = q.dtype if q.is_cuda and q.dtype != torch.float32 else dtype
    made = plan(
        heads=q.shape[1],
        head_dim=q.shape[3],
        length=q.shape[2],
        block=pattern.block,
        dtype=dtype,
        device=q.device,
        scale=scale,
        softmax=softmax,
        key_padding=lengths is not None,
    )
    key = (pattern.digest, "operator")
    kept = made._tables.get(key)
    if kept is None:
        kept = made._tables[key] = tables(pattern, made)
    o, lse = torch.ops.spion.attention(q, k, v, kept, lengths, pattern.block, float(scale), softmax)
    if o.requires_grad and not torch.compiler.is_compiling():
        lse = lse.requires_grad_()
        lse.register_hook(_refuse_lse)
    return o, lse


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: Pattern,
    *,
    lengths: torch.Tensor | None = None,
    scale: float = 0.0,
    softmax: str = "masked",
) -> torch.Tensor:
    """softmax(scale Q K^T) V over the pattern's blocks, differentiable in q, k and v.

    q, k, v: [B, H, L, D], float32 on the host, also bfloat16 and float16 on a GPU. lengths: [B]
    int32, the number of valid keys of each sample. scale: 0: 1/sqrt(D). Returns o [B, H, L, D].
    Under torch.compile use BlockSparseAttention, whose pattern is a buffer.
    """
    return attention_with_lse(q, k, v, pattern, lengths=lengths, scale=scale, softmax=softmax)[0]
