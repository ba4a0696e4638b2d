"""A pass of a plan in PyTorch's memory: operands made readable, outputs and a workspace allocated, one
call of the library. Both operators use it (_op.py, _general.py)."""

from __future__ import annotations

import torch

from .._plan import BACKWARD, FORWARD, Plan

_Maybe = torch.Tensor | None
# What only some calls have: dropout_state, alibi_slopes, sinks and relative_bias.
Scores = tuple[_Maybe, _Maybe, _Maybe, _Maybe]
_NO_SCORES: Scores = (None, None, None, None)


def readable(x: torch.Tensor) -> torch.Tensor:
    """As kernels read it: D contiguous, and on a GPU rows, heads and samples at 16 bytes."""
    *outer, last = x.stride()
    if last != 1:
        return x.contiguous()
    if x.is_cuda:
        size = x.element_size()
        if x.data_ptr() % 16 or any(stride * size % 16 for stride in outer):
            return x.clone(memory_format=torch.contiguous_format)
    return x


def empty(like: torch.Tensor) -> torch.Tensor:
    """Of its strides if its rows are dense, else contiguous."""
    if like.stride(3) == 1:
        return torch.empty_like(like)
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def empty_output(q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """For o: as q, but as wide as v."""
    if v.shape[3] == q.shape[3]:
        return empty(q)
    return q.new_empty((*q.shape[:3], v.shape[3]))


def empty_lse(q: torch.Tensor) -> torch.Tensor:
    return q.new_empty(q.shape[:3], dtype=torch.float32)


def empty_sinks(q: torch.Tensor, sinks: _Maybe) -> torch.Tensor:
    """For the gradient of the sinks, [H]; without sinks [0]."""
    heads = 0 if sinks is None else q.shape[1]
    return torch.empty(heads, dtype=torch.float32, device=q.device)


def empty_bias(q: torch.Tensor, bias: _Maybe) -> torch.Tensor:
    """For the gradient of a bias by relative position, [H, 2R + 1]; without one [0, 0]."""
    shape = (0, 0) if bias is None else bias.shape
    return torch.empty(shape, dtype=torch.float32, device=q.device)


def _workspace(plan: Plan, like: torch.Tensor, which: int) -> torch.Tensor | None:
    if not like.is_cuda:
        return None
    needed, _ = plan.core.workspace(like.shape[0], which)
    return torch.empty(needed, dtype=torch.uint8, device=like.device)


def forward(
    plan: Plan,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    lengths: _Maybe,
    spans: _Maybe,
    scores: Scores = _NO_SCORES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(o, lse)."""
    o, lse = empty_output(q, v), empty_lse(q)
    operands = (readable(x) for x in (q, k, v))
    memory = _workspace(plan, q, FORWARD)
    *scores, bias = scores
    beside = (tables, lengths, spans, memory, None, True, None, *scores, None, None, bias)
    plan.core.forward(*operands, o, lse, *beside)
    return o, lse


def backward(
    plan: Plan,
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    tables: torch.Tensor,
    lengths: _Maybe,
    spans: _Maybe,
    scores: Scores = _NO_SCORES,
    d_sinks: _Maybe = None,
    d_bias: _Maybe = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(d_q, d_k, d_v); also writes to d_sinks and d_bias."""
    gradients = (empty(q), empty(k), empty(v))
    d_o, q, k, v = (readable(x) for x in (d_o, q, k, v))
    memory = _workspace(plan, q, BACKWARD)
    *scores, bias = scores
    beside = (tables, lengths, spans, memory, None, True, None, *scores, d_sinks)
    plan.core.backward(d_o, q, k, v, o, lse, *gradients, *beside, None, None, bias, d_bias)
    return gradients
