"""Masks within blocks: which keys a query keeps, said at each call."""

from __future__ import annotations

from typing import Any

from . import _core
from ._core import UserError


def _numbers(given: Any, name: str) -> Any:
    import numpy

    if given is None:
        return None
    array = numpy.asarray(given)
    if array.dtype.kind not in "iub":
        raise UserError(f"{name} is of {array.dtype}: give integers")
    return numpy.ascontiguousarray(array, numpy.int32)


def spans(
    batch: int,
    length: int,
    *,
    causal: bool = False,
    left: int | None = None,
    right: int | None = None,
    documents: Any = None,
    prefixes: Any = None,
    query_lengths: Any = None,
    key_length: int | None = None,
    key_documents: Any = None,
    cu_seqlens: Any = None,
    key_cu_seqlens: Any = None,
) -> Any:
    """The rules as kernels read them, for calls of a plan with spans=True: int32 of NumPy's,
    [2, batch, length, 2]. Query i keeps key j when all rules that are given say so.

    causal: j <= i. left, right: i - left <= j and j <= i + right, a sliding window. documents:
    [batch, length] ids that never decrease, i's equals j's. prefixes: [batch], with causal: keys
    below it are kept by all. query_lengths: [batch], queries from it on keep nothing.

    key_length: of keys in another number than queries, which are aligned at their ends: i counts from
    key_length - length then. key_documents: [batch, key_length], theirs. The spans are then one row of
    2 * batch * (length + key_length) numbers.

    cu_seqlens: [batch + 1], for calls of a plan with varlen: what lies beyond the end of sequence b,
    from cu_seqlens[b + 1] - cu_seqlens[b] on, keeps and is kept by nothing. The other rules number
    positions from each sequence's first; `length` is the plan's. key_cu_seqlens: [batch + 1], with
    key_starts: that of keys, of at most key_length positions; i then counts from each sequence's own
    number of keys less that of its queries.
    """
    import numpy

    if batch < 1 or length < 1:
        raise UserError(f"the batch is {batch} and the length {length}: give at least 1 for each")
    keys = length if key_length is None else key_length
    if keys < 1:
        raise UserError(f"the length of keys is {keys}: give at least 1")
    made = numpy.empty(2 * batch * (length + keys), numpy.int32)
    of_queries, of_keys = numpy.split(made, [2 * batch * length])
    _core.write_spans(
        causal,
        left,
        right,
        _numbers(documents, "documents"),
        _numbers(prefixes, "prefixes"),
        _numbers(query_lengths, "query_lengths"),
        _numbers(key_documents, "key_documents"),
        of_queries.reshape(batch, length, 2),
        of_keys.reshape(batch, keys, 2),
        _numbers(cu_seqlens, "cu_seqlens"),
        _numbers(key_cu_seqlens, "key_cu_seqlens"),
    )
    return made.reshape(2, batch, length, 2) if keys == length else made
