"""Discovery from Q and K, on the device and without a map of L x L."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import _arrays
from ._arrays import Array
from ._context import Context
from ._core import UserError
from ._pattern import Pattern, settings
from ._plan import Attention


class Discoverer:
    """The kernel that pools the dense map of Q and K of one shape. `attention.block` is the
    pattern's; the other settings are those of `discover`. Where attention.patterns is above 1, each
    head of K and V, or each head, has a map and a pattern of its own."""

    def __init__(
        self,
        attention: Attention,
        context: Context,
        *,
        variant: str = "cf",
        filter: int = 31,
        quantile: float = 0.96,
        density: float = 0.04,
    ) -> None:
        self._rows = -(-attention.length // attention.block)
        self._attention = attention
        seen = dataclasses.replace(attention, dropout=0.0, sinks=False)  # what lse has seen of them
        if attention.patterns > 1:
            check_heads(attention)
            group = attention.heads // attention.patterns
            seen = dataclasses.replace(seen, heads=group, key_value_heads=1, patterns=1)
        self._core = context._core.discoverer(
            seen.core(),
            settings(attention.block, variant, filter, quantile, density),
        )

    def __call__(
        self,
        q: Array,
        k: Array,
        lse: Array,
        *,
        lengths: Array | None = None,
        alibi_slopes: Array | None = None,
        stream: int | None = None,
    ) -> tuple[Pattern, Array]:
        """The pattern, and the pooled map [nb, nb] of NumPy's float64 that it was found in: means over
        samples and heads; [patterns, nb, nb] where heads have patterns of their own. lse: [B, H, L] of
        dense attention, dropping nothing. alibi_slopes: [H]. Waits for the device."""
        import numpy

        for name, array in (("q", q), ("k", k), ("lse", lse)):
            _arrays.check(array, name)
        q, k, lse = (_arrays.lent(array) for array in (q, k, lse))
        patterns = self._attention.patterns
        if patterns == 1:
            return self._look(q, k, lse, lengths, alibi_slopes, stream)
        heads, shared = self._attention.heads, self._attention.key_value_heads
        if q.shape[1] != heads or k.shape[1] != (shared or heads):
            raise UserError(
                f"q has {q.shape[1]} heads and k {k.shape[1]}, and the discoverer is for {heads} and "
                f"{shared or heads}: give as many"
            )
        group, found, maps = heads // patterns, [], []
        for index in range(patterns):
            own = slice(index * group, (index + 1) * group)
            key = index * k.shape[1] // patterns
            slopes = None if alibi_slopes is None else alibi_slopes[own]
            of_group = _arrays.contiguous(lse[:, own])
            pattern, pooled = self._look(
                q[:, own], k[:, key : key + 1], of_group, lengths, slopes, stream
            )
            found.append(pattern)
            maps.append(pooled)
        return Pattern.from_heads(found), numpy.stack(maps)

    def _look(
        self,
        q: Array,
        k: Array,
        lse: Array,
        lengths: Array | None,
        slopes: Array | None,
        stream: int | None,
    ) -> tuple[Pattern, Array]:
        import numpy

        sums = _arrays.empty(q, (self._core.sum_bytes // 4,), "float32")
        self._core.run(q, k, lse, lengths, sums, stream, slopes)
        pooled = numpy.empty((self._rows, self._rows))
        pattern = self._core.finish(_on_host(sums), pooled)
        return Pattern(pattern), pooled


def check_heads(attention: Attention) -> None:
    shared = attention.key_value_heads or attention.heads
    if attention.patterns not in (shared, attention.heads):
        raise UserError(
            f"{attention.patterns} patterns were given for {attention.heads} heads and {shared} of K "
            "and V: give 1, one a head of K and V, or one a head"
        )


def _on_host(array: Array) -> Any:
    import numpy

    if _arrays.is_torch(array):
        return array.cpu().numpy()
    return array.get() if hasattr(array, "get") else numpy.asarray(array)
