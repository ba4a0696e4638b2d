"""Block-sparse attention for PyTorch 2.10 or later: an operator with gradients, a module whose
pattern is a buffer, and the schedule that finds patterns while a model trains.

    layer = spion.torch.BlockSparseAttention(pattern, heads=8, head_dim=64)
    o = layer(q, k, v)                                  [B, H, L, D]
    o = spion.torch.attention(q, k, v, pattern)         the same without a module
    o = spion.torch.packed_attention(qkv, pattern)      [B, L, 3, H, D] to [B, L, H, D]
    o = spion.torch.varlen_attention(q, k, v, pattern, cu_seqlens)      [T, H, D], nothing padded
"""

from . import _release  # first: whether PyTorch is there, and new enough
from ._flex import from_block_mask, spans_of_block_mask, to_block_mask
from ._functional import attention, attention_with_lse, spans
from ._general import dropout_state, no_dropout
from ._module import BlockSparseAttention
from ._packed import packed_attention
from ._plans import plan, tables
from ._schedule import SpionSchedule
from ._sequences import varlen_attention
from ._sharding import register as register_sharding

__all__ = [
    "BlockSparseAttention",
    "SpionSchedule",
    "attention",
    "attention_with_lse",
    "dropout_state",
    "from_block_mask",
    "no_dropout",
    "packed_attention",
    "plan",
    "register_sharding",
    "spans",
    "spans_of_block_mask",
    "tables",
    "to_block_mask",
    "varlen_attention",
]
