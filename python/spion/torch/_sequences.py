"""Sequences that lie end to end, [T, H, D] with cu_seqlens, as a function and its operator:

    spion::varlen_attention(q, k, v, tables, cu_seqlens, spans, length, block, scale, softmax, softcap,
        dropout, patterns, dropout_state, alibi_slopes, sinks, relative_bias=None)
        -> (o [T, H, Dv], lse [B, H, length])
    spion::varlen_attention_backward(d_o, q, k, v, o, lse, the same)
        -> (d_q, d_k, d_v, d_sinks, d_relative_bias)

One plan serves all sequences of at most `length` positions, whatever their number. lse counts as a
constant, and is -inf beyond a sequence's end.
"""

from __future__ import annotations

from typing import Any

import torch

from .._core import UserError
from .._pattern import Pattern
from .._plan import BACKWARD, FORWARD, Plan
from ._functional import _computed_in, _state_for, _tables_of
from ._functional import spans as _spans
from ._general import define, learnt, with_bias
from ._passes import empty_bias, empty_sinks, readable
from ._plans import (
    Changes, Words, check, check_ranks, find_sequences, plan, reach_of, value_dim_of,
)
from ._recording import Kernels

_ARGUMENTS = (
    "Tensor tables, Tensor cu_seqlens, Tensor spans, int length, int block, float scale, str softmax, "
    "float softcap, float dropout, int patterns, Tensor? dropout_state, Tensor? alibi_slopes, "
    "Tensor? sinks, Tensor? relative_bias=None"
)
_Maybe = torch.Tensor | None


def _heads_first(x: torch.Tensor) -> torch.Tensor:
    """[H, T, D], as the library takes it, without a copy."""
    return x.transpose(0, 1)


def _workspace(found: Plan, like: torch.Tensor, batch: int, which: int) -> _Maybe:
    if not like.is_cuda:
        return None
    needed, _ = found.core.workspace(batch, which)
    return torch.empty(needed, dtype=torch.uint8, device=like.device)


def _plan_of(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tables: torch.Tensor, rest: tuple[Any, ...]
) -> Plan:
    length, block, scale, softmax, softcap, dropout, patterns, _, slopes, sinks, bias = rest
    changes = Changes(
        0, softcap, dropout, patterns, slopes is not None, sinks is not None,
        value_dim_of(q, v), True, reach_of(bias),
    )
    return find_sequences(q, k, v, tables, length, Words(block, scale, softmax, False), changes)


def _varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    cu_seqlens: torch.Tensor,
    spans: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    rest = with_bias(rest, 10)
    found = _plan_of(q, k, v, tables, rest)
    o, lse = _fake(q, k, v, tables, cu_seqlens, spans, *rest)
    lse.fill_(-torch.inf)
    arrays = (_heads_first(x) for x in (readable(q), readable(k), readable(v), o))
    memory = _workspace(found, q, lse.shape[0], FORWARD)
    *scores, bias = rest[-4:]
    beside = (tables, None, spans, memory, None, True, None, *scores, cu_seqlens, None, bias)
    found.core.forward(*list(arrays), lse, *beside)
    return o, lse


def _fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    cu_seqlens: torch.Tensor,
    spans: torch.Tensor,
    length: int,
    *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    o = q.new_empty((q.shape[0], q.shape[1], v.shape[-1]))
    batch = cu_seqlens.shape[0] - 1
    return o, q.new_empty((batch, q.shape[1], length), dtype=torch.float32)


def _varlen_backward(
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    tables: torch.Tensor,
    cu_seqlens: torch.Tensor,
    spans: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rest = with_bias(rest, 10)
    found = _plan_of(q, k, v, tables, rest)
    *gradients, d_sinks, d_bias = _fake_backward(d_o, q, k, v, *rest)
    read = [_heads_first(readable(x)) for x in (d_o, q, k, v, o)]
    memory = _workspace(found, q, lse.shape[0], BACKWARD)
    *scores, bias = rest[-4:]
    of_sinks, of_bias = learnt(rest, d_sinks, d_bias)
    beside = (tables, None, spans, memory, None, True, None, *scores, of_sinks, cu_seqlens, None)
    found.core.backward(*read, lse, *(_heads_first(x) for x in gradients), *beside, bias, of_bias)
    return *gradients, d_sinks, d_bias


def _fake_backward(
    d_o: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    *_, sinks, bias = rest
    made = (x.new_empty(x.shape) for x in (q, k, v))
    return *made, empty_sinks(q, sinks), empty_bias(q, bias)


def _save(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
    *arguments, state, slopes, sinks, bias = arguments
    *tensors, length, block, scale, softmax, softcap, dropout, patterns = arguments
    ctx.words = (length, block, scale, softmax, softcap, dropout, patterns)
    ctx.save_for_backward(*tensors, *output, state, slopes, sinks, bias)


def _differentiate(ctx: Any, d_o: torch.Tensor, backward: Any) -> tuple[Any, ...]:
    """Of q, k, v, the sinks and the bias."""
    q, k, v, tables, cu_seqlens, spans, o, lse, *scores = ctx.saved_tensors
    *gradients, d_sinks, d_bias = backward(
        d_o, q, k, v, o, lse, tables, cu_seqlens, spans, *ctx.words, *scores
    )
    return *gradients, *learnt(scores, d_sinks, d_bias)


def _fake_of_backward(
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    return _fake_backward(d_o, q, k, v, *with_bias(rest, 13))


_library = define(
    "varlen_attention",
    _ARGUMENTS,
    Kernels(_varlen, _varlen_backward, _fake, _fake_of_backward),
    _save,
    _differentiate,
)


def _mask_for(
    given: _Maybe, causal: bool, length: int, cu_seqlens: torch.Tensor
) -> torch.Tensor:
    if given is None:
        starts = cu_seqlens.cpu().numpy()
        batch, device = starts.shape[0] - 1, cu_seqlens.device
        return _spans(batch, length, device=device, causal=causal, cu_seqlens=starts)
    if causal:
        raise UserError("causal and spans are given: say causal to spion.torch.spans")
    return given


def varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: Pattern,
    cu_seqlens: torch.Tensor,
    *,
    causal: bool = False,
    spans: torch.Tensor | None = None,
    scale: float = 0.0,
    softmax: str = "masked",
    softcap: float = 0.0,
    dropout: float = 0.0,
    dropout_state: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    relative_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention within each of B sequences that lie end to end, nothing padded; differentiable in q,
    k, v, sinks and relative_bias.

    q: [T, H, D]. k: [T, Hkv, D], v: [T, Hkv, Dv]. pattern: of the longest sequence that there may be,
    cut to each. cu_seqlens: [B + 1] int32, where q is: 0, the row where each further sequence begins,
    and T; on the host they are looked at. causal: a query keeps the keys up to its own position.
    spans: any mask instead, of spion.torch.spans(B, pattern.length, cu_seqlens=...); without it one is
    made here from cu_seqlens, which waits for a GPU: there, make spans once for all layers. The others
    are those of spion.torch.attention. Returns o [T, H, Dv].
    """
    check_ranks(q, k, v)
    check(q.device, q.dtype)
    spans = _mask_for(spans, causal, pattern.length, cu_seqlens)
    dropout_state = _state_for(dropout, dropout_state, q.device)
    made = plan(
        heads=q.shape[1],
        head_dim=q.shape[2],
        length=pattern.length,
        block=pattern.block,
        dtype=_computed_in(q),
        device=q.device,
        scale=scale,
        softmax=softmax,
        key_value_heads=k.shape[1],
        softcap=softcap,
        dropout=dropout,
        patterns=pattern.patterns,
        alibi=alibi_slopes is not None,
        sinks=sinks is not None,
        value_dim=v.shape[2],
        varlen=True,
        relative_bias=reach_of(relative_bias),
    )
    numbers = float(scale), softmax, float(softcap), float(dropout), pattern.patterns
    in_dtype = [x.to(_computed_in(q)) for x in (q, k, v)]
    return torch.ops.spion.varlen_attention(
        *in_dtype, _tables_of(made, pattern), cu_seqlens, spans, pattern.length, pattern.block,
        *numbers, dropout_state, alibi_slopes, sinks, relative_bias,
    )[0]
