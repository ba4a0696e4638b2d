"""Attention as a function of tensors and a pattern."""

from __future__ import annotations

from typing import Any

import torch

from .._core import UserError
from .._pattern import Pattern
from .._plan import _KEPT_TABLES, Plan
from . import _op
from ._arguments import check_pattern, check_tensors, check_words
from ._general import dropout_state as _drawn
from ._plans import check, check_rank, plan, reach_of, tables


def _refuse_lse(gradient: torch.Tensor) -> None:
    raise UserError(
        "lse has no gradient here, and a loss depends on it: use lse.detach(), or o alone"
    )


def _computed_in(q: torch.Tensor) -> torch.dtype:
    """The operator's dtype for q, under autocast too."""
    kind = q.device.type
    if not torch.is_autocast_enabled(kind):
        return q.dtype
    if kind == "cpu":
        return torch.float32
    return torch.get_autocast_dtype("cuda") if q.dtype == torch.float32 else q.dtype


def _state_for(
    dropout: float, given: torch.Tensor | None, device: torch.device
) -> torch.Tensor | None:
    """What a call's dropout draws from: what it was given, or what PyTorch's generator says."""
    if given is not None and not dropout:
        raise UserError("a dropout_state is given and dropout is 0: give both or none")
    return _drawn(device) if dropout and given is None else given


def _tables_of(made: Plan, pattern: Pattern) -> torch.Tensor:
    key = (pattern.digest, "operator")
    kept = made._tables.get(key)
    if kept is None:
        while len(made._tables) >= _KEPT_TABLES:
            made._tables.pop(next(iter(made._tables)))
        kept = made._tables[key] = (tables(pattern, made), b"")
    return kept[0]


def _plan_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: Pattern,
    lengths: torch.Tensor | None,
    spans: torch.Tensor | None,
    alibi_slopes: torch.Tensor | None,
    sinks: torch.Tensor | None,
    relative_bias: torch.Tensor | None,
    **numbers: Any,
) -> Plan:
    """Of a call with these tensors."""
    return plan(
        heads=q.shape[1],
        head_dim=q.shape[3],
        length=q.shape[2],
        block=pattern.block,
        dtype=_computed_in(q),
        device=q.device,
        key_padding=lengths is not None,
        key_value_heads=k.shape[1],
        spans=spans is not None,
        key_length=k.shape[2],
        patterns=pattern.patterns,
        alibi=alibi_slopes is not None,
        sinks=sinks is not None,
        value_dim=v.shape[3],
        relative_bias=reach_of(relative_bias),
        **numbers,
    )


def attention_with_lse(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: Pattern,
    *,
    lengths: torch.Tensor | None = None,
    scale: float = 0.0,
    softmax: str = "masked",
    causal: bool = False,
    spans: torch.Tensor | None = None,
    softcap: float = 0.0,
    dropout: float = 0.0,
    dropout_state: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    relative_bias: torch.Tensor | None = None,
    score: str = "",
    score_derivative: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:
    """As attention; also lse [B, H, L] float32, the logarithm of each row's softmax sum. A loss that
    depends on lse is refused when it is differentiated; in a compiled graph, as of the operator
    itself, lse counts as a constant."""
    learnt = {"sinks": sinks, "relative_bias": relative_bias}
    beside = {"lengths": lengths, "spans": spans, "alibi_slopes": alibi_slopes, **learnt}
    check_tensors(q=q, k=k, v=v, dropout_state=dropout_state, **beside)
    check_pattern(pattern)
    check_words(scale, score, score_derivative, alibi_slopes)
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_rank(x, name)
    check(q.device, q.dtype)
    dropout_state = _state_for(dropout, dropout_state, q.device)
    made = _plan_of(
        q, k, v, pattern, lengths, spans, alibi_slopes, sinks, relative_bias, scale=scale,
        softmax=softmax, causal=causal, softcap=softcap, dropout=dropout, score=score,
        score_derivative=score_derivative,
    )
    given = _tables_of(made, pattern), lengths, pattern.block, float(scale), softmax, causal, spans
    scores = alibi_slopes, sinks, relative_bias
    changed = softcap or dropout or score or pattern.patterns > 1
    changed = changed or any(x is not None for x in scores)
    if changed or k.shape[2] != q.shape[2] or v.shape[3] != q.shape[3]:
        changes = float(softcap), float(dropout), pattern.patterns, dropout_state, *scores
        in_dtype = [x.to(_computed_in(q)) for x in (q, k, v)]
        expressions = score, score_derivative
        o, lse = torch.ops.spion.general_attention(*in_dtype, *given, *changes, *expressions)
    else:
        o, lse = _op.call(q, k, v, *given)
    if o.requires_grad and not torch.compiler.is_compiling():
        lse.requires_grad_().register_hook(_refuse_lse)
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
    causal: bool = False,
    spans: torch.Tensor | None = None,
    softcap: float = 0.0,
    dropout: float = 0.0,
    dropout_state: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    relative_bias: torch.Tensor | None = None,
    score: str = "",
    score_derivative: str = "",
) -> torch.Tensor:
    """softmax(scale Q K^T) V over the pattern's blocks, differentiable in q, k, v, sinks and
    relative_bias.

    q: [B, H, L, D], float32 on the host, also bfloat16 and float16 on a GPU. k, v: the same, or with
    a number of heads that divides H, and with another length; v also with another width Dv. lengths:
    [B] int32, the number of valid keys of each sample.
    scale: 0: 1/sqrt(D). causal: a query keeps the keys up to its own position. spans: another mask
    within blocks (spion.torch.spans). softcap: above 0, a score s becomes softcap * tanh(s / softcap).
    dropout: of probabilities; which drop is decided by dropout_state (spion.torch.dropout_state), which
    PyTorch's generator of the device draws where it is not given. alibi_slopes, sinks: [H] float32;
    slope * |i + Lk - L - j| is taken off a score, and a sink is one score more in its head's sums.
    relative_bias: [H, 2R + 1] float32; a score gets that of its head and of its key's distance from its
    query, j - (i + Lk - L) limited to -R to R, at place R + distance.
    score: what a score becomes before slopes and biases, an expression of score, q, k, head and batch such as
    "score-0.1*log(1+fabs(q-k))" (docs/ir.md; compiled into the kernels); score_derivative: its derivative by score,
    which is checked, where another than the derived one is wanted.
    Returns o [B, H, L, Dv]. Under torch.compile use BlockSparseAttention, whose pattern is a buffer.
    """
    return attention_with_lse(
        q,
        k,
        v,
        pattern,
        lengths=lengths,
        scale=scale,
        softmax=softmax,
        causal=causal,
        spans=spans,
        softcap=softcap,
        dropout=dropout,
        dropout_state=dropout_state,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        relative_bias=relative_bias,
        score=score,
        score_derivative=score_derivative,
    )[0]


def spans(
    batch: int, length: int, *, device: torch.device | str = "cpu", **rules: object
) -> torch.Tensor:
    """A mask within blocks as the operator takes it, int32 [2, batch, length, 2] on the device (with
    another key_length, one row of 2 * batch * (length + key_length)).
    rules: those of spion.spans, whose arrays are on the host."""
    from .._mask import spans as on_host

    return torch.from_numpy(on_host(batch, length, **rules)).to(device)  # type: ignore[arg-type]
