"""How DTensor may shard the operators: samples or heads, of all tensors alike; only samples where the
heads of q, k and v lie side by side."""

from __future__ import annotations

from typing import Any

import torch


def register() -> None:
    """For torch.ops.spion: batch (dimension 0) and heads (dimension 1). Tables are whole on every
    rank and made for its own number of heads; `lengths` and `spans` go with the samples."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.experimental import register_sharding

    def rules(outputs: int, tensors: int, lengths: Any, spans: Any) -> list[Any]:
        """Of `outputs`, and of `tensors`, tables, lengths, four words and spans."""
        made = []
        for shard in (None, 0, 1):
            each = Replicate() if shard is None else Shard(shard)
            counts = Shard(0) if shard == 0 else Replicate()
            masks = Shard(1) if shard == 0 else Replicate()
            beside = [
                Replicate(),
                None if lengths is None else counts,
                *[None] * 4,
                None if spans is None else masks,
            ]
            made.append(([each] * outputs, [each] * tensors + beside))
        return made

    @register_sharding(torch.ops.spion.attention.default)
    def forward(  # type: ignore[no-untyped-def]
        q, k, v, tables, lengths, block, scale, softmax, causal=False, spans=None
    ):
        return rules(2, 3, lengths, spans)

    @register_sharding(torch.ops.spion.attention_backward.default)
    def backward(  # type: ignore[no-untyped-def]
        d_o, q, k, v, o, lse, tables, lengths, block, scale, softmax, causal=False, spans=None
    ):
        return rules(3, 6, lengths, spans)

    def packed_rules(outputs: int, tensors: int, lengths: Any, spans: Any) -> list[Any]:
        """The same of samples; the number of heads stands before the tables, two expressions at the end."""
        made = []
        for results, given in rules(outputs, tensors, lengths, spans)[:2]:
            made.append((results, [*given[:tensors], None, *given[tensors:], None, None]))
        return made

    @register_sharding(torch.ops.spion.packed_attention.default)
    def packed_forward(  # type: ignore[no-untyped-def]
        qkv, heads, tables, lengths, block, scale, softmax, causal, spans, score="",
        score_derivative="",
    ):
        return packed_rules(2, 1, lengths, spans)

    @register_sharding(torch.ops.spion.packed_attention_backward.default)
    def packed_backward(  # type: ignore[no-untyped-def]
        d_o, qkv, o, lse, heads, tables, lengths, block, scale, softmax, causal, spans, score="",
        score_derivative="",
    ):
        return packed_rules(1, 4, lengths, spans)
