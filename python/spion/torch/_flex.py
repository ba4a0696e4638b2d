"""FlexAttention's BlockMask from and to patterns."""

from __future__ import annotations

from typing import Any

import torch

from .._core import UserError
from .._pattern import Pattern
from ._stretches import spans_of


def from_block_mask(block_mask: Any, length: int | None = None) -> Pattern:
    """The pattern of a BlockMask whose samples and heads have one mask: full and partial blocks. What
    is masked within the partial ones spans_of_block_mask says."""
    return Pattern.from_flex(block_mask, length)


def spans_of_block_mask(block_mask: Any, batch: int) -> torch.Tensor:
    """What the BlockMask's mask_mod keeps of the partial blocks, as attention takes it beside the
    pattern of from_block_mask: int32 [2, batch, L, 2]. Looks at every element once."""
    pattern = Pattern.from_flex(block_mask, None)
    length, block = pattern.length, pattern.block
    device = block_mask.kv_indices.device
    full = torch.zeros(pattern.rows, pattern.rows, dtype=torch.bool, device=device)
    if block_mask.full_kv_num_blocks is not None:
        counts, columns = block_mask.full_kv_num_blocks[0, 0], block_mask.full_kv_indices[0, 0]
        listed = torch.arange(columns.shape[1], device=device) < counts[:, None]
        full[listed.nonzero()[:, 0], columns[listed].long()] = True
    some = torch.from_numpy(pattern.bits()).bool().to(device)
    keys, samples = torch.arange(length, device=device), torch.arange(batch, device=device)
    head = torch.zeros((), dtype=torch.int64, device=device)

    def rows(queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        allowed = block_mask.mask_mod(
            samples[:, None, None], head, queries[None, :, None], keys[None, None, :]
        )
        at = (queries[:, None] // block, keys[None, :] // block)
        seen = some[at].expand(batch, len(queries), length)
        return seen & (allowed | full[at]), seen

    made = spans_of(rows, batch, length, device)
    if made is None:
        raise UserError(
            "the BlockMask keeps keys of a query with gaps between them, or keys that come back "
            "later, within blocks: spion takes one stretch of a query's keys, so use blocks that "
            "fit the gaps"
        )
    return made


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
