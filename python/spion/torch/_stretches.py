"""Masks of other libraries as spans: where each query keeps one stretch of the keys that its blocks
have, and no stretch begins or ends before that of the query in front of it."""

from __future__ import annotations

from typing import Callable

import torch

# Of queries [rows]: which keys they keep, and which they see at all, [B, rows, L] of bool each.
Rows = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_ELEMENTS = 1 << 24  # of the map that are looked at at once


def _bounds(kept: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Of each row: the least and greatest begin, the least and greatest end, whether nothing is kept,
    and whether keys are missing in between; [B, rows, 6]."""
    length = kept.shape[-1]
    keys = torch.arange(length, device=kept.device)
    first = torch.where(kept, keys, length).amin(-1)
    end = torch.where(kept, keys + 1, 0).amax(-1)
    dropped = seen & ~kept
    before = torch.where(dropped & (keys < first[..., None]), keys + 1, 0).amax(-1)
    after = torch.where(dropped & (keys >= end[..., None]), keys, length).amin(-1)
    between = dropped & (keys >= first[..., None]) & (keys < end[..., None])
    return torch.stack([before, first, end, after, first == length, between.any(-1)], -1)


def _spans(
    before: torch.Tensor,
    first: torch.Tensor,
    end: torch.Tensor,
    after: torch.Tensor,
    empty: torch.Tensor,
) -> torch.Tensor | None:
    """Of queries [B, L] that keep the keys from `first` to `end`, and may seem to keep those from `before`
    to `after`, or that keep nothing."""
    batch, length = first.shape
    ends = torch.where(empty, 0, end).cummax(1).values
    # A query that keeps nothing has an empty stretch where the others have come to.
    begins = torch.where(empty, ends, before).cummax(1).values
    fits = (begins <= first) & (ends <= after)
    if not bool((fits | (empty & (begins == ends))).all()):
        return None
    every = torch.arange(length, device=first.device).expand(batch, length).contiguous()
    from_query = torch.searchsorted(ends, every, right=True)
    to_query = torch.maximum(torch.searchsorted(begins, every, right=True), from_query)
    made = [torch.stack(pair, -1) for pair in ((begins, ends), (from_query, to_query))]
    return torch.stack(made).to(torch.int32)


def spans_of(rows: Rows, batch: int, length: int, device: torch.device) -> torch.Tensor | None:
    """int32 [2, B, L, 2] as spion.spans makes them, or None where the mask is not of this kind."""
    step = max(1, _ELEMENTS // (batch * length))
    keys = torch.arange(length, device=device)
    parts = [_bounds(*rows(keys[at : at + step])) for at in range(0, length, step)]
    before, first, end, after, nothing, gaps = torch.cat(parts, 1).unbind(-1)
    if bool(gaps.any()):
        return None
    return _spans(before, first, end, after, nothing.bool())


def spans_between(begin: torch.Tensor, end: torch.Tensor) -> torch.Tensor | None:
    """The same of queries [B, L] whose keys begin and end there."""
    return _spans(begin, begin, end, end, begin >= end)
