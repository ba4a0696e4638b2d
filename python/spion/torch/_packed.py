"""Attention of heads that lie side by side, [B, L, H + 2 Hkv, D]: those of q, of k and of v, as one linear
layer projects them. Their gradient is one tensor too, which the kernels write, so that nothing gathers
three for the layer's own gradients.

    spion::packed_attention(qkv, heads, tables, lengths, block, scale, softmax, causal, spans, score="",
        score_derivative="") -> (o [B, L, H, D], lse [B, H, L])
    spion::packed_attention_backward(d_o, qkv, o, lse, the same from heads on) -> d_qkv

Its plans and bits are those of spion::attention (_op.py), with an expression of scores those of
spion::general_attention. lse counts as a constant.
"""

from __future__ import annotations

from typing import Any

import torch

from .._core import UserError
from .._pattern import Pattern
from ._arguments import check_pattern, check_tensors, check_words
from ._functional import _computed_in, _tables_of
from ._general import EXPRESSIONS
from ._op import computed_in
from ._passes import backward, forward
from ._plans import Changes, Words, check, direct, find, plan
from ._recording import Derivative, Kernels, autocast, register

_ARGUMENTS = (
    "int heads, Tensor tables, Tensor? lengths, int block, float scale, str softmax, bool causal, "
    "Tensor? spans, " + EXPRESSIONS
)
_Maybe = torch.Tensor | None


def check_packed(qkv: torch.Tensor, heads: int) -> None:
    shared = qkv.shape[2] - heads if qkv.ndim == 4 else 0
    if heads < 1 or shared < 2 or shared % 2:
        raise UserError(
            f"qkv has shape {tuple(qkv.shape)} with {heads} heads of q: give [B, L, H + 2 Hkv, D], the "
            "heads of q, k and v side by side"
        )


def as_heads(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, L, H + 2 Hkv, D], also of [B, L, 3, H, D]."""
    if qkv.ndim == 5 and qkv.shape[2] == 3:
        qkv = qkv.flatten(2, 3)
    check_packed(qkv, heads)
    return qkv


def parts(qkv: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and v of it, [B, heads, L, D] each, without a copy."""
    shared = (qkv.shape[2] - heads) // 2
    q, k, v = qkv.transpose(1, 2).split((heads, shared, shared), 1)
    return q, k, v


def _changes(score: str, derivative: str) -> Changes | None:
    """What `find` is told of an expression of scores; None where there is none."""
    given = Changes(score=score, score_derivative=derivative)
    return given if score or derivative else None


def _forward(
    qkv: torch.Tensor,
    heads: int,
    tables: torch.Tensor,
    lengths: _Maybe,
    block: int,
    scale: float,
    softmax: str,
    causal: bool,
    spans: _Maybe,
    score: str = "",
    derivative: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:
    given = (tables, lengths, block, scale, softmax, causal, spans)
    made = direct.forward_packed(qkv, heads, *given, score, derivative)
    if made is not None:
        return made
    check_packed(qkv, heads)
    q, k, v = parts(qkv, heads)
    words, changes = Words(block, scale, softmax, causal), _changes(score, derivative)
    found = find(q, k, v, tables, lengths, spans, words, changes)
    o, lse = forward(found, q, k, v, tables, lengths, spans)
    return o.transpose(1, 2).contiguous(), lse


def _fake(qkv: torch.Tensor, heads: int, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    check_packed(qkv, heads)
    batch, length, _, width = qkv.shape
    o = qkv.new_empty((batch, length, heads, width))
    return o, qkv.new_empty((batch, heads, length), dtype=torch.float32)


def _backward(
    d_o: torch.Tensor,
    qkv: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    heads: int,
    tables: torch.Tensor,
    lengths: _Maybe,
    block: int,
    scale: float,
    softmax: str,
    causal: bool,
    spans: _Maybe,
    score: str = "",
    derivative: str = "",
) -> torch.Tensor:
    given = (tables, lengths, block, scale, softmax, causal, spans)
    made = direct.backward_packed(d_o, qkv, o, lse, heads, *given, score, derivative)
    if made is not None:
        return made
    check_packed(qkv, heads)
    q, k, v = parts(qkv, heads)
    words, changes = Words(block, scale, softmax, causal), _changes(score, derivative)
    found = find(q, k, v, tables, lengths, spans, words, changes)
    turned = d_o.transpose(1, 2), q, k, v, o.transpose(1, 2)
    gradients = backward(found, *turned, lse, tables, lengths, spans)
    return torch.cat([x.transpose(1, 2) for x in gradients], 2)


def _fake_backward(d_o: torch.Tensor, qkv: torch.Tensor, *rest: Any) -> torch.Tensor:
    return qkv.new_empty(qkv.shape)


def _save(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
    qkv, heads, tables, lengths, block, scale, softmax, causal, spans, *expressions = arguments
    ctx.words = (heads, (block, scale, softmax, causal), expressions)
    ctx.save_for_backward(qkv, *output, tables, lengths, spans)


def _differentiate(ctx: Any, d_o: torch.Tensor, backward: Any) -> tuple[torch.Tensor]:
    qkv, o, lse, tables, lengths, spans = ctx.saved_tensors
    heads, words, expressions = ctx.words
    return (backward(d_o, qkv, o, lse, heads, tables, lengths, *words, spans, *expressions),)


def _register() -> torch.library.Library:
    library = torch.library.Library("spion", "FRAGMENT")
    library.define(f"packed_attention(Tensor qkv, {_ARGUMENTS}) -> (Tensor o, Tensor lse)")
    library.define(
        "packed_attention_backward(Tensor d_o, Tensor qkv, Tensor o, Tensor lse, "
        f"{_ARGUMENTS}) -> Tensor"
    )
    kernels = Kernels(_forward, _backward, _fake, _fake_backward, direct.forward_packed)
    register(library, "packed_attention", kernels, Derivative((0,), _save, _differentiate))
    autocast(library, "packed_attention", 1, computed_in)
    return library


_library = _register()  # the operators live as long as it


def packed_attention(
    qkv: torch.Tensor,
    pattern: Pattern,
    *,
    key_value_heads: int = 0,
    lengths: torch.Tensor | None = None,
    scale: float = 0.0,
    softmax: str = "masked",
    causal: bool = False,
    spans: torch.Tensor | None = None,
    score: str = "",
    score_derivative: str = "",
) -> torch.Tensor:
    """attention() of what one linear layer projects, differentiable in qkv, whose gradient the kernels write as
    one tensor.

    qkv: [B, L, H + 2 Hkv, D], the heads of q, of k and of v side by side; or [B, L, 3, H, D].
    key_value_heads: Hkv; 0: H. The others are those of attention. Returns o [B, L, H, D].
    """
    check_tensors(qkv=qkv, lengths=lengths, spans=spans)
    check_pattern(pattern)
    check_words(scale, score, score_derivative)
    count = 0 if qkv.ndim < 4 else qkv.shape[2] if qkv.ndim == 4 else 3 * qkv.shape[3]
    heads = count - 2 * key_value_heads if key_value_heads else count // 3
    qkv = as_heads(qkv, heads)
    check(qkv.device, qkv.dtype)
    made = plan(
        heads=heads,
        head_dim=qkv.shape[3],
        length=qkv.shape[1],
        block=pattern.block,
        dtype=_computed_in(qkv),
        device=qkv.device,
        scale=scale,
        softmax=softmax,
        key_padding=lengths is not None,
        key_value_heads=key_value_heads or heads,
        causal=causal,
        spans=spans is not None,
        score=score,
        score_derivative=score_derivative,
    )
    given = _tables_of(made, pattern), lengths, pattern.block, float(scale), softmax, causal, spans
    return torch.ops.spion.packed_attention(qkv, heads, *given, score, score_derivative)[0]
