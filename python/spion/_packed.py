"""Batches of Hugging Face's without padding: sequences end to end in one row [1, H, T, D], which begin
where `cu_seq_lens_q` says (DataCollatorWithFlattening gives it with return_flash_attn_kwargs=True), or
where `position_ids` begin anew. The patterns of layers are then cut to each sequence."""

from __future__ import annotations

import weakref
from typing import Any, Callable, NamedTuple

import torch
from torch import nn

from ._core import UserError
from ._pattern import Pattern
from .torch import varlen_attention

_BLOCK = 64  # of the full pattern, where none was set
_REMEMBERED = 8  # results of the last calls: a model's layers ask for the same few


class Sequences(NamedTuple):
    starts: torch.Tensor  # [B + 1] int32, where the tensors are
    longest: int


class _Remembered:
    """The results of a function of tensors, while these live and nobody has written to them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._kept: list[tuple[tuple[Any, ...], tuple[Any, ...], Any]] = []

    def __call__(self, tensors: tuple[torch.Tensor | None, ...], *rest: Any) -> Any:
        given = [x for x in tensors if x is not None]
        if torch.compiler.is_compiling() or any(x.is_inference() for x in given):
            return self._function(*tensors, *rest)
        versions = tuple(None if x is None else x._version for x in tensors)
        for seen, key, made in self._kept:
            same = all((a and a()) is b for a, b in zip(seen, tensors))
            if same and key == (versions, rest):
                return made
        made = self._function(*tensors, *rest)
        weak = tuple(None if x is None else weakref.ref(x) for x in tensors)
        self._kept = [*self._kept[-_REMEMBERED + 1 :], (weak, (versions, rest), made)]
        return made


def _starts_of(given: torch.Tensor, longest: int | None, device: torch.device) -> Sequences:
    starts = given.to(device, torch.int32).contiguous()
    return Sequences(starts, int(starts.diff().max()) if longest is None else longest)


def _restarts(positions: torch.Tensor, device: torch.device) -> Sequences | None:
    """Of position_ids [1, T], as transformers finds packed sequences in them; None of one sequence."""
    begins = (positions[0].diff() != 1).nonzero()[:, 0] + 1
    if begins.numel() == 0:
        return None
    ends = begins.new_tensor([0]), begins, begins.new_tensor([positions.shape[1]])
    return _starts_of(torch.cat(ends), None, device)


_from_starts, _from_positions = _Remembered(_starts_of), _Remembered(_restarts)


def sequences_of(
    query: torch.Tensor,
    key: torch.Tensor,
    pattern: Pattern | None,
    lengths: torch.Tensor | None,
    kwargs: dict[str, Any],
) -> Sequences | None:
    """Where the sequences of a call begin; None of a call with samples of one length."""
    batch, _, rows, _ = query.shape
    given, of_keys = kwargs.get("cu_seq_lens_q"), kwargs.get("cu_seq_lens_k")
    if given is not None:
        if batch != 1:
            raise UserError(
                f"cu_seq_lens_q is given and the batch is {batch}: packed sequences lie in one row"
            )
        if lengths is not None:
            raise UserError(
                "cu_seq_lens_q is given and keys are padded: leave out the attention mask, as packed "
                "sequences have no padding"
            )
        same = of_keys is None or of_keys is given or torch.equal(of_keys, given)
        if not same or key.shape[2] != rows:
            raise UserError(
                "cu_seq_lens_k is not cu_seq_lens_q, so that some keys may come from a cache, and "
                "spion has no caches: use another attn_implementation"
            )
        longest = kwargs.get("max_length_q")
        longest = None if longest is None else int(longest)
        return _from_starts((given,), longest, query.device)
    positions = kwargs.get("position_ids")
    cut = pattern is not None and pattern.length != rows and key.shape[2] == rows
    if not cut or batch != 1 or lengths is not None:
        return None
    if positions is None or positions.shape != (1, rows):
        return None
    return _from_positions((positions,), query.device)


def _spans(
    mask: torch.Tensor | None, starts: torch.Tensor, rows: int, length: int, causal: bool
) -> torch.Tensor:
    """int32 [2, B, length, 2] of each sequence, numbered from its first position. mask: [2, 1, T, 2],
    numbered from the row's; None: all of a sequence's keys, or the causal ones."""
    first, own = starts[:-1, None], starts.diff()[:, None]  # [B, 1]
    at = torch.arange(length, device=starts.device, dtype=torch.int32)
    if mask is None:
        zeros = at.expand(len(own), length) * 0
        queries = torch.stack([zeros, at + 1 + zeros if causal else zeros + own], -1)
        keys = torch.stack([at + zeros if causal else zeros, zeros + own], -1)
        made = torch.stack([queries, keys])
    else:
        in_row = (first + at).clamp(max=rows - 1).long()
        made = mask[:, 0][:, in_row] - first[:, :, None]
    made = torch.minimum(made.clamp(min=0), own[:, :, None])
    inside = at < own
    return torch.where(inside[:, :, None], made, own[:, :, None]).to(torch.int32).contiguous()


_spans_for = _Remembered(_spans)


def _full(longest: int) -> Pattern:
    """Of a power of two, so that batches of other lengths take the same kernels."""
    return Pattern.full(max(_BLOCK, 1 << (longest - 1).bit_length()), block=_BLOCK)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sequences: Sequences,
    mask: torch.Tensor | None,
    causal: bool,
    **rest: Any,
) -> torch.Tensor:
    """query, key, value [1, H, T, D] to o [1, T, H, Dv]; rest: of spion.torch.varlen_attention."""
    starts, longest = sequences
    pattern = getattr(module, "spion_pattern", None) or _full(longest)
    if pattern.length < longest or pattern.key_length != pattern.length:
        raise UserError(
            f"a packed sequence has {longest} positions and the layer's pattern is for "
            f"{pattern.length} queries and {pattern.key_length} keys: set one of as many keys as "
            "queries that is as long as the longest sequence"
        )
    rows = query.shape[2]
    spans = _spans_for((mask, starts), rows, pattern.length, causal)
    operands = (x[0].transpose(0, 1) for x in (query, key, value))
    return varlen_attention(*operands, pattern, starts, spans=spans, **rest)[None]
