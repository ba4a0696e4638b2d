"""Sequences that lie end to end, [T, H, D] with cu_seqlens, as a function and its operator:

    spion::varlen_attention(q, k, v, tables, cu_seqlens, spans, length, block, scale, softmax, softcap,
        dropout, patterns, dropout_state, alibi_slopes, sinks, relative_bias=None, sequence_patterns=0,
        key_cu_seqlens=None, key_length=0, score="", score_derivative="") -> (o [T, H, Dv], lse [B, H, length])
    spion::varlen_attention_backward(d_o, q, k, v, o, lse, the same)
        -> (d_q, d_k, d_v, d_sinks, d_relative_bias)

One plan serves all sequences of at most `length` positions, whatever their number. lse counts as a
constant, and is -inf beyond a sequence's end.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import torch

from .._core import UserError
from .._pattern import Pattern
from .._plan import BACKWARD, FORWARD, Plan
from ._arguments import check_pattern, check_tensors, check_words
from ._functional import _computed_in, _state_for, _tables_of
from ._functional import spans as _spans
from ._general import EXPRESSIONS, define, learnt
from ._passes import empty_bias, empty_sinks, readable
from ._plans import (
    Changes, Words, check, check_ranks, find_sequences, reach_of, value_dim_of,
)
from ._recording import Kernels

_ARGUMENTS = (
    "Tensor tables, Tensor cu_seqlens, Tensor spans, int length, int block, float scale, str softmax, "
    "float softcap, float dropout, int patterns, Tensor? dropout_state, Tensor? alibi_slopes, "
    "Tensor? sinks, Tensor? relative_bias=None, int sequence_patterns=0, Tensor? key_cu_seqlens=None, "
    "int key_length=0, " + EXPRESSIONS
)
_Maybe = torch.Tensor | None


class _Given(NamedTuple):
    """What the operators are told beside their operands; the last may be left out."""

    tables: torch.Tensor
    cu_seqlens: torch.Tensor
    spans: torch.Tensor
    length: int
    block: int
    scale: float
    softmax: str
    softcap: float
    dropout: float
    patterns: int
    state: _Maybe
    slopes: _Maybe
    sinks: _Maybe
    bias: _Maybe = None
    sequence_patterns: int = 0
    key_cu_seqlens: _Maybe = None
    key_length: int = 0
    score: str = ""
    score_derivative: str = ""

    @property
    def batch(self) -> int:
        return self.cu_seqlens.shape[0] - 1


def _heads_first(x: torch.Tensor) -> torch.Tensor:
    """[H, T, D], as the library takes it, without a copy."""
    return x.transpose(0, 1)


def _workspace(found: Plan, like: torch.Tensor, batch: int, which: int) -> _Maybe:
    if not like.is_cuda:
        return None
    needed, _ = found.core.workspace(batch, which)
    return torch.empty(needed, dtype=torch.uint8, device=like.device)


def _plan_of(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, given: _Given, tables: _Maybe
) -> Plan:
    keys = 0 if given.key_length == given.length else given.key_length
    some = given.slopes is not None, given.sinks is not None
    changes = Changes(
        keys, given.softcap, given.dropout, given.patterns, *some, value_dim_of(q, v), True,
        reach_of(given.bias), given.key_cu_seqlens is not None, given.sequence_patterns,
        given.score, given.score_derivative,
    )
    words = Words(given.block, given.scale, given.softmax, False)
    return find_sequences(q, k, v, tables, given.length, words, changes)


def _varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    given = _Given(*rest)
    found = _plan_of(q, k, v, given, given.tables)
    o, lse = _fake(q, k, v, *rest)
    lse.fill_(-torch.inf)
    arrays = (_heads_first(x) for x in (readable(q), readable(k), readable(v), o))
    memory = _workspace(found, q, given.batch, FORWARD)
    scores = given.state, given.slopes, given.sinks
    beside = (given.tables, None, given.spans, memory, None, True, None, *scores)
    starts = given.cu_seqlens, None, given.bias, given.key_cu_seqlens
    found.core.forward(*list(arrays), lse, *beside, *starts)
    return o, lse


def _fake(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    given = _Given(*rest)
    o = q.new_empty((q.shape[0], q.shape[1], v.shape[-1]))
    return o, q.new_empty((given.batch, q.shape[1], given.length), dtype=torch.float32)


def _varlen_backward(
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    given = _Given(*rest)
    found = _plan_of(q, k, v, given, given.tables)
    *gradients, d_sinks, d_bias = _fake_backward(d_o, q, k, v, o, lse, *rest)
    read = [_heads_first(readable(x)) for x in (d_o, q, k, v, o)]
    memory = _workspace(found, q, given.batch, BACKWARD)
    scores = given.state, given.slopes, given.sinks
    of_sinks, of_bias = learnt((given.sinks, given.bias), d_sinks, d_bias)
    beside = (given.tables, None, given.spans, memory, None, True, None, *scores, of_sinks)
    starts = given.cu_seqlens, None, given.bias, of_bias, given.key_cu_seqlens
    found.core.backward(*read, lse, *(_heads_first(x) for x in gradients), *beside, *starts)
    return *gradients, d_sinks, d_bias


def _fake_backward(
    d_o: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    given = _Given(*rest)
    made = (x.new_empty(x.shape) for x in (q, k, v))
    return *made, empty_sinks(q, given.sinks), empty_bias(q, given.bias)


def _save(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
    given = _Given(*arguments[3:])
    # Tensors are kept as autograd wants it, and None in their places among the others.
    are = [isinstance(x, torch.Tensor) for x in given]
    ctx.given = tuple(None if tensor else x for x, tensor in zip(given, are))
    ctx.save_for_backward(*arguments[:3], *output, *(x if t else None for x, t in zip(given, are)))


def _differentiate(ctx: Any, d_o: torch.Tensor, backward: Any) -> tuple[Any, ...]:
    """Of q, k, v, the sinks and the bias."""
    q, k, v, o, lse, *tensors = ctx.saved_tensors
    given = _Given(*(x if t is None else t for x, t in zip(ctx.given, tensors)))
    *gradients, d_sinks, d_bias = backward(d_o, q, k, v, o, lse, *given)
    return *gradients, *learnt((given.sinks, given.bias), d_sinks, d_bias)


_library = define(
    "varlen_attention",
    _ARGUMENTS,
    Kernels(_varlen, _varlen_backward, _fake, _fake_backward),
    _save,
    _differentiate,
)


def mask_for(
    given: _Maybe, causal: bool, pattern: Pattern, cu_seqlens: torch.Tensor, of_keys: _Maybe
) -> torch.Tensor:
    """The spans of a call: those that it is given, or all that sequences keep, or causal ones."""
    if given is None:
        rules: dict[str, Any] = {"causal": causal, "cu_seqlens": cu_seqlens.cpu().numpy()}
        if of_keys is not None:
            rules.update(key_cu_seqlens=of_keys.cpu().numpy(), key_length=pattern.key_length)
        return _spans(cu_seqlens.shape[0] - 1, pattern.length, device=cu_seqlens.device, **rules)
    if causal:
        raise UserError("causal and spans are given: say causal to spion.torch.spans")
    return given


def _of_sequences(
    pattern: Pattern | Sequence[Pattern], cu_seqlens: torch.Tensor
) -> tuple[Pattern, int, int]:
    """One pattern of all, the number of a sequence's, and for how many sequences there is to be room: a
    power of two, so that other numbers of them take the same kernels; 0: they share theirs."""
    if isinstance(pattern, Pattern):
        return pattern, pattern.patterns, 0
    batch = cu_seqlens.shape[0] - 1
    if len(pattern) != batch or len({x.patterns for x in pattern}) != 1:
        raise UserError(
            f"{len(pattern)} patterns were given for {batch} sequences: give one for each, all with "
            "as many patterns of heads, or one for all"
        )
    return Pattern.from_heads(list(pattern)), pattern[0].patterns, 1 << (batch - 1).bit_length()


def varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pattern: Pattern | Sequence[Pattern],
    cu_seqlens: torch.Tensor,
    *,
    key_cu_seqlens: torch.Tensor | None = None,
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
    score: str = "",
    score_derivative: str = "",
) -> torch.Tensor:
    """Attention within each of B sequences that lie end to end, nothing padded; differentiable in q,
    k, v, sinks and relative_bias.

    q: [T, H, D]. k: [T, Hkv, D], v: [T, Hkv, Dv]. pattern: of the longest sequence that there may be,
    cut to each; or one for each sequence, all of that length. cu_seqlens: [B + 1] int32, where q is: 0,
    the row where each further sequence begins, and T; on the host they are looked at. key_cu_seqlens:
    the same of k and v, where their sequences are others than those of q, of at most the pattern's
    key_length; aligned at their ends. causal: a query keeps the keys up to its own position. spans: any
    mask instead, of spion.torch.spans(B, pattern.length, cu_seqlens=...); without it one is
    made here from cu_seqlens, which waits for a GPU: there, make spans once for all layers. The others
    are those of spion.torch.attention. Returns o [T, H, Dv].
    """
    starts = {"cu_seqlens": cu_seqlens, "key_cu_seqlens": key_cu_seqlens}
    learnt = {"sinks": sinks, "relative_bias": relative_bias}
    beside = {"spans": spans, "dropout_state": dropout_state, "alibi_slopes": alibi_slopes, **learnt}
    check_tensors(q=q, k=k, v=v, **starts, **beside)
    for one in [pattern] if isinstance(pattern, Pattern) else pattern:
        check_pattern(one)
    check_words(scale, score, score_derivative, alibi_slopes)
    check_ranks(q, k, v)
    check(q.device, q.dtype)
    whole, patterns, sequences = _of_sequences(pattern, cu_seqlens)
    spans = mask_for(spans, causal, whole, cu_seqlens, key_cu_seqlens)
    dropout_state = _state_for(dropout, dropout_state, q.device)
    in_dtype = [x.to(_computed_in(q)) for x in (q, k, v)]
    sizes = whole.length, whole.block
    numbers = float(scale), softmax, float(softcap), float(dropout), patterns
    scores = dropout_state, alibi_slopes, sinks, relative_bias
    keys = sequences, key_cu_seqlens, whole.key_length
    rest = (cu_seqlens, spans, *sizes, *numbers, *scores, *keys, score, score_derivative)
    made = _plan_of(*in_dtype, _Given(cu_seqlens, *rest), None)  # in the place of tables to be made
    return torch.ops.spion.varlen_attention(*in_dtype, _tables_of(made, whole), *rest)[0]
