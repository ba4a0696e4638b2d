"""Mask functions of transformers read by what they are made of, so that nothing of L x L is computed: each is
a conjunction of causal masks, windows, chunks and packed sequences, and keeps one stretch of keys a query."""

from __future__ import annotations

import inspect
from typing import Any, Callable

import torch

from .torch._stretches import spans_between

Function = Callable[..., Any]
Stretches = tuple[torch.Tensor, torch.Tensor]  # where those of queries begin and end, [B, L] each
_LIBRARY = "transformers.masking_utils"


class _Unknown(Exception):
    """Something that is not read here."""


def _parts(function: Function, remapped: bool = False) -> list[tuple[str, dict[str, Any], bool]]:
    """(the name in transformers, what it was made with, whether it sees positions within sequences) of each
    function that all must allow a key."""
    if function.__module__ != _LIBRARY:
        raise _Unknown
    name, made = function.__qualname__.split(".")[0], inspect.getclosurevars(function).nonlocals
    if name == "and_masks":
        return [part for one in made["mask_functions"] for part in _parts(one, remapped)]
    if name == "remap_positions_for_packed_sequence":
        return _parts(made["mask_function"], True)
    return [(name, made, remapped)]


def _of_valid(valid: torch.Tensor) -> Stretches:
    """From the first valid key to the last, for every query."""
    at = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
    counted = valid.to(torch.int32)
    begin = counted.argmax(-1, keepdim=True)
    end = begin + counted.sum(-1, keepdim=True)
    if not torch.equal(valid, (at >= begin) & (at < end)):
        raise _Unknown
    return begin.expand(valid.shape), end.expand(valid.shape)


def _of_sequences(ids: torch.Tensor) -> Stretches:
    """Of numbers of sequences [B, L]."""
    ids = ids.contiguous()
    if bool((ids.diff(dim=-1) < 0).any()):
        raise _Unknown
    return torch.searchsorted(ids, ids), torch.searchsorted(ids, ids, right=True)


def _stretches(
    function: Function, valid: torch.Tensor, batch: int, length: int
) -> Stretches:
    """Before anything has been checked."""
    at = torch.arange(length, device=valid.device).expand(batch, length)
    begin, end = _of_valid(valid)
    parts = _parts(function)
    packed = any(name == "packed_sequence_mask_function" for name, *_ in parts)
    for name, made, remapped in parts:
        if remapped and not packed:
            raise _Unknown  # positions are consecutive within a sequence alone
        if name == "causal_mask_function":
            end = torch.minimum(end, at + 1)
        elif name == "sliding_window_overlay":
            begin = torch.maximum(begin, at - made["sliding_window"] + 1)
        elif name == "sliding_window_bidirectional_overlay":
            begin = torch.maximum(begin, at - made["sliding_window"])
            end = torch.minimum(end, at + made["sliding_window"] + 1)
        elif name == "chunked_overlay" and not remapped:
            padding = made["left_padding"].to(at.device).view(-1, 1)
            chunk = (at - padding) // made["chunk_size"]
            begin = torch.maximum(begin, chunk * made["chunk_size"] + padding)
            end = torch.minimum(end, (chunk + 1) * made["chunk_size"] + padding)
        elif name == "packed_sequence_mask_function":
            own = _of_sequences(made["packed_sequence_mask"].to(at.device).expand(batch, length))
            begin, end = torch.maximum(begin, own[0]), torch.minimum(end, own[1])
        elif name != "bidirectional_mask_function":
            raise _Unknown
    return begin, end


def _agrees(function: Function, valid: torch.Tensor, stretches: Stretches) -> bool:
    """Whether the function itself keeps the first and last key of each stretch, and not the keys around it."""
    begin, end = stretches
    batch, length = begin.shape
    samples = torch.arange(batch, device=begin.device)[:, None]
    head = torch.zeros((), dtype=torch.int64, device=begin.device)
    queries = torch.arange(length, device=begin.device)[None]
    some = begin < end
    for keys, wanted in ((begin - 1, False), (begin, True), (end - 1, True), (end, False)):
        within = some & (keys >= 0) & (keys < length)
        keys = keys.clamp(0, length - 1)
        kept = function(samples, head, queries, keys) & valid.gather(1, keys)
        if bool((within & (kept != wanted)).any()):
            return False
    return True


def spans_of_function(
    function: Function, valid: torch.Tensor, batch: int, length: int
) -> torch.Tensor | None:
    """int32 [2, B, L, 2] as spion.spans makes them, of as many keys as queries, less the keys that are not
    valid [B, L]; None of a function that is not read here, or keeps anything else than stretches."""
    try:
        stretches = _stretches(function, valid, batch, length)
    except (_Unknown, KeyError):
        return None
    if not _agrees(function, valid, stretches):
        return None
    return spans_between(*stretches)
