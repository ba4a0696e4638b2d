"""FlexAttention's BlockMask from and to patterns."""

from __future__ import annotations

from typing import Any

import torch

from .._pattern import Pattern


def from_block_mask(block_mask: Any, length: int | None = None) -> Pattern:
    """The pattern of a BlockMask whose samples and heads have one mask; partly masked blocks are
    taken whole."""
    return Pattern.from_flex(block_mask, length)


def to_block_mask(pattern: Pattern, device: torch.device | str = "cpu") -> Any:
    """The BlockMask that computes the pattern's blocks, each whole. Judge by compiled FlexAttention:
    the eager one of PyTorch 2.15 looks at mask_mod alone."""
    from torch.nn.attention.flex_attention import BlockMask

    bits = torch.from_numpy(pattern.bits()).to(torch.int32)
    counts = bits.sum(-1, dtype=torch.int32)
    columns = torch.argsort(bits, dim=-1, descending=True, stable=True).to(torch.int32)
    counts, columns = (x[None, None].to(device) for x in (counts, columns))
    block, length = pattern.block, pattern.length
    on_device = bits.bool().to(device)

    def inside(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return on_device[query // block, key // block]

    return BlockMask.from_kv_blocks(
        torch.zeros_like(counts),
        torch.zeros_like(columns),
        counts,
        columns,
        BLOCK_SIZE=block,
        mask_mod=inside,
        seq_lengths=(length, length),
    )
