"""The operator for what few calls have: keys of another length, values of another width, changes of scores, sinks, a bias by
relative position, dropout of probabilities and patterns of heads.

    spion::general_attention(q, k, v, tables, lengths, block, scale, softmax, causal, spans, softcap,
        dropout, patterns, dropout_state, alibi_slopes, sinks, relative_bias=None, score="",
        score_derivative="") -> (o, lse)
    spion::general_attention_backward(d_o, q, k, v, o, lse, the same)
        -> (d_q, d_k, d_v, d_sinks, d_relative_bias)

As spion::attention (_op.py) it finds its plan by what tensors are, never by patterns. lse counts as a
constant; d_sinks and d_relative_bias are empty where there are none.
"""

from __future__ import annotations

from typing import Any

import torch

from ._arguments import check_words
from ._passes import backward, empty, empty_bias, empty_lse, empty_output, empty_sinks, forward
from ._plans import Changes, Words, check_rank, direct, find, reach_of
from ._recording import Derivative, Kernels, register

# A user's expression of scores and its derivative, last of the arguments of the operators that have them.
EXPRESSIONS = "str score='', str score_derivative=''"
_ARGUMENTS = (
    "Tensor tables, Tensor? lengths, int block, float scale, str softmax, bool causal, Tensor? spans, "
    "float softcap, float dropout, int patterns, Tensor? dropout_state, Tensor? alibi_slopes, "
    "Tensor? sinks, Tensor? relative_bias=None, " + EXPRESSIONS
)
_Maybe = torch.Tensor | None


def dropout_state(
    device: torch.device | str, generator: torch.Generator | None = None
) -> torch.Tensor:
    """What dropout draws from: int64 [2] on the device, a seed and an offset that PyTorch's generator
    there decides (torch.manual_seed), or the one given. Nothing waits for the GPU, and a replayed CUDA
    graph draws anew."""
    return torch.randint(2**32, 2**33, (2,), device=device, generator=generator)


def no_dropout(device: torch.device | str) -> torch.Tensor:
    """A state by which nothing is dropped: for evaluation by the same plan."""
    return torch.zeros(2, dtype=torch.int64, device=device)


def _general(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    lengths: _Maybe,
    block: int,
    scale: float,
    softmax: str,
    causal: bool,
    spans: _Maybe,
    softcap: float,
    dropout: float,
    patterns: int,
    state: _Maybe,
    slopes: _Maybe,
    sinks: _Maybe,
    bias: _Maybe = None,
    score: str = "",
    derivative: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:
    given = (tables, lengths, block, scale, softmax, causal, spans)
    changed = (softcap, dropout, patterns, state, slopes, sinks, bias, score, derivative)
    made = direct.forward_general(q, k, v, *given, *changed)
    if made is not None:
        return made
    words = Words(block, scale, softmax, causal)
    some = slopes is not None, sinks is not None
    changes = Changes(
        0, softcap, dropout, patterns, *some, relative_bias=reach_of(bias), score=score,
        score_derivative=derivative,
    )
    plan = find(q, k, v, tables, lengths, spans, words, changes, slopes, sinks, bias)
    return forward(plan, q, k, v, tables, lengths, spans, (state, slopes, sinks, bias))


def _fake(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    check_rank(q)
    return empty_output(q, v), empty_lse(q)


def _general_backward(
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
    causal: bool,
    spans: _Maybe,
    softcap: float,
    dropout: float,
    patterns: int,
    state: _Maybe,
    slopes: _Maybe,
    sinks: _Maybe,
    bias: _Maybe = None,
    score: str = "",
    derivative: str = "",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    given = (tables, lengths, block, scale, softmax, causal, spans)
    changed = (softcap, dropout, patterns, state, slopes, sinks, bias, score, derivative)
    d_sinks, d_bias = empty_sinks(q, sinks), empty_bias(q, bias)
    written = None if sinks is None else d_sinks, None if bias is None else d_bias
    made = direct.backward_general(d_o, q, k, v, o, lse, *given, *changed, *written)
    if made is not None:
        return *made, d_sinks, d_bias
    words = Words(block, scale, softmax, causal)
    some = slopes is not None, sinks is not None
    changes = Changes(
        0, softcap, dropout, patterns, *some, relative_bias=reach_of(bias), score=score,
        score_derivative=derivative,
    )
    plan = find(q, k, v, tables, lengths, spans, words, changes, slopes, sinks, bias)
    scores = (state, slopes, sinks, bias)
    made = backward(plan, d_o, q, k, v, o, lse, tables, lengths, spans, scores, *written)
    return *made, d_sinks, d_bias


def _fake_backward(
    d_o: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    sinks = rest[14]
    bias = rest[15] if len(rest) > 15 else None  # what has its default may be left out
    return empty(q), empty(k), empty(v), empty_sinks(q, sinks), empty_bias(q, bias)


def learnt(scores: Any, d_sinks: torch.Tensor, d_bias: torch.Tensor) -> tuple[_Maybe, _Maybe]:
    """The gradients of those of sinks and bias, the last of `scores`, that a call has."""
    *_, sinks, bias = scores
    return None if sinks is None else d_sinks, None if bias is None else d_bias


def _save(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
    q, k, v, tables, lengths, block, scale, softmax, causal, spans, *changes = arguments
    softcap, dropout, patterns, state, slopes, sinks, bias, *expressions = changes
    check_words(scale, *expressions, slopes)
    ctx.words = (block, scale, softmax, causal)
    ctx.changes, ctx.expressions = (softcap, dropout, patterns), expressions
    ctx.save_for_backward(q, k, v, *output, tables, lengths, spans, state, slopes, sinks, bias)


def _differentiate(ctx: Any, d_o: torch.Tensor, backward: Any) -> tuple[Any, ...]:
    """Of q, k, v, the sinks and the bias."""
    q, k, v, o, lse, tables, lengths, spans, *scores = ctx.saved_tensors
    *gradients, d_sinks, d_bias = backward(
        d_o, q, k, v, o, lse, tables, lengths, *ctx.words, spans, *ctx.changes, *scores,
        *ctx.expressions,
    )
    return *gradients, *learnt(scores, d_sinks, d_bias)


def define(
    name: str, arguments: str, kernels: Kernels, save: Any, differentiate: Any
) -> torch.library.Library:
    """The operator spion::NAME(q, k, v, arguments) -> (o, lse) and its _backward, whose gradients are those
    of q, k, v, sinks and relative_bias. The operators live as long as what is returned."""
    library = torch.library.Library("spion", "FRAGMENT")
    library.define(f"{name}(Tensor q, Tensor k, Tensor v, {arguments}) -> (Tensor o, Tensor lse)")
    library.define(
        f"{name}_backward(Tensor d_o, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, "
        f"{arguments}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    )
    names = [x.name for x in getattr(torch.ops.spion, name).default._schema.arguments]
    places = (0, 1, 2, names.index("sinks"), names.index("relative_bias"))
    register(library, name, kernels, Derivative(places, save, differentiate))
    return library


_library = define(
    "general_attention",
    _ARGUMENTS,
    Kernels(_general, _general_backward, _fake, _fake_backward, direct.forward_general),
    _save,
    _differentiate,
)
