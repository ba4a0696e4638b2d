"""Discovery from Q and K, on the device and without a map of L x L."""

from __future__ import annotations

from typing import Any

from . import _arrays
from ._arrays import Array
from ._context import Context
from ._pattern import Pattern, settings
from ._plan import Attention


class Discoverer:
    """The kernel that pools the dense map of Q and K of one shape. `attention.block` is the
    pattern's; the other settings are those of `discover`."""

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
        self._core = context._core.discoverer(
            attention.core(),
            settings(attention.block, variant, filter, quantile, density),
        )

    def __call__(
        self,
        q: Array,
        k: Array,
        lse: Array,
        *,
        lengths: Array | None = None,
        stream: int | None = None,
    ) -> tuple[Pattern, Array]:
        """The pattern, and the pooled map [nb, nb] of NumPy's float64 that it was found in: means
        over samples and heads. lse: [B, H, L] of dense attention. Waits for the device."""
        import numpy

        for name, array in (("q", q), ("k", k), ("lse", lse)):
            _arrays.check(array, name)
        sums = _arrays.empty(q, (self._core.sum_bytes // 4,), "float32")
        self._core.run(_arrays.lent(q), _arrays.lent(k), _arrays.lent(lse), lengths, sums, stream)
        pooled = numpy.empty((self._rows, self._rows))
        pattern = self._core.finish(_on_host(sums), pooled)
        return Pattern(pattern), pooled


def _on_host(array: Array) -> Any:
    import numpy

    if _arrays.is_torch(array):
        return array.cpu().numpy()
    return array.get() if hasattr(array, "get") else numpy.asarray(array)
