"""How DTensor may shard the operators: samples or heads, of all tensors alike."""

from __future__ import annotations

from typing import Any

import torch


def register() -> None:
    """For torch.ops.spion: batch (dimension 0) and heads (dimension 1). Tables are whole on every
    rank and made for its own number of heads; `lengths` goes with the samples."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.experimental import register_sharding

    def placements(lengths: Any, shard: int | None) -> tuple[Any, Any, Any]:
        """Of tensors, of tables, of lengths."""
        each = Replicate() if shard is None else Shard(shard)
        counts = Shard(0) if shard == 0 else Replicate()
        return each, Replicate(), None if lengths is None else counts

    @register_sharding(torch.ops.spion.attention.default)
    def forward(q, k, v, tables, lengths, block, scale, softmax):  # type: ignore[no-untyped-def]
        rules = []
        for shard in (None, 0, 1):
            each, whole, counts = placements(lengths, shard)
            rules.append(([each, each], [each, each, each, whole, counts, None, None, None]))
        return rules

    @register_sharding(torch.ops.spion.attention_backward.default)
    def backward(  # type: ignore[no-untyped-def]
        d_o, q, k, v, o, lse, tables, lengths, block, scale, softmax
    ):
        rules = []
        for shard in (None, 0, 1):
            each, whole, counts = placements(lengths, shard)
            rules.append(([each] * 3, [each] * 6 + [whole, counts, None, None, None]))
        return rules
