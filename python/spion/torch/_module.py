"""The operator as a module, whose pattern is part of its state."""

from __future__ import annotations

from typing import Any, Callable

import numpy
import torch
from torch import nn

from .._core import UserError
from .._pattern import Pattern
from .._plan import Plan
from . import _op, _packed, _plans
from ._arguments import check_pattern, check_words
from ._general import dropout_state, no_dropout
from ._sequences import mask_for


class BlockSparseAttention(nn.Module):
    """softmax(scale Q K^T) V over the blocks of a pattern.

    forward(q, k, v, lengths=None, spans=None): [B, heads, L, head_dim] each, k and v with
    key_value_heads and the pattern's key_length, v value_dim wide (0: head_dim); gives
    [B, heads, L, value_dim]. With q alone it is packed(qkv), all three side by side. A pattern of heads
    (Pattern.from_heads) is taken like one for all.
    With varlen=True, forward(q, k, v, cu_seqlens=...)
    takes sequences of at most the pattern's length end to end, [T, heads, head_dim] each, as
    spion.torch.varlen_attention does, to each of which the pattern is cut; with key_starts=True also
    key_cu_seqlens, of k and v. spans are made of these where they are not given, which waits for a GPU.

    Two buffers: `pattern_bits`, in the state_dict, and `tables`, made from them for the plan of this
    device and dtype, so that checkpoints are loaded on any. Both keep their size whatever the
    pattern: modules of equal shape share one compiled graph, and set_pattern changes a captured
    CUDA graph in place. Parameters of spion.torch.plan: heads and head_dim (of this process's shard
    under tensor parallelism), scale, softmax, key_padding, key_value_heads, causal, spans,
    max_blocks, softcap. dropout: of probabilities while the module trains, drawn by PyTorch's generator
    of the device; in eval() nothing is dropped, by the same kernels. alibi_slopes: [heads], kept as a
    buffer. sinks: a parameter [heads] float32 of that name, which begins at 0. relative_bias: R, of a
    parameter [heads, 2R + 1] of that name, likewise. score, score_derivative: an expression of scores, as
    spion.torch.attention has it; no part of the state_dict. dtype: of q, k and v; under autocast they are
    converted to it.
    """

    pattern_bits: torch.Tensor
    tables: torch.Tensor
    alibi_slopes: torch.Tensor | None
    sinks: torch.Tensor | None
    relative_bias: torch.Tensor | None
    _general: bool

    def __init__(
        self,
        pattern: Pattern,
        *,
        heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        scale: float = 0.0,
        softmax: str = "masked",
        key_padding: bool = False,
        key_value_heads: int = 0,
        causal: bool = False,
        spans: bool = False,
        softcap: float = 0.0,
        dropout: float = 0.0,
        alibi_slopes: torch.Tensor | None = None,
        sinks: bool = False,
        relative_bias: int = 0,
        max_blocks: int = 0,
        value_dim: int = 0,
        varlen: bool = False,
        key_starts: bool = False,
        score: str = "",
        score_derivative: str = "",
        typical: Pattern | None = None,
    ) -> None:
        super().__init__()
        check_pattern(pattern)
        check_words(scale, score, score_derivative, alibi_slopes)
        self.heads, self.head_dim, self.dtype = heads, head_dim, dtype
        self.value_dim = value_dim or head_dim
        self.length, self.block = pattern.length, pattern.block
        self.key_length, self.patterns = pattern.key_length, pattern.patterns
        self.varlen, self.key_starts = varlen, key_starts
        self.softcap, self.dropout = float(softcap), float(dropout)
        self.score, self.score_derivative = score, score_derivative
        self.scale, self.softmax = float(scale), softmax
        self.key_padding, self.max_blocks = key_padding, max_blocks
        self.key_value_heads, self.causal, self.spans = key_value_heads or heads, causal, spans
        self._typical, self._pattern = typical, pattern
        where = torch.get_default_device() if device is None else torch.device(device)
        packed = numpy.packbits(pattern.bits(), axis=None)
        self.register_buffer("pattern_bits", torch.from_numpy(packed).to(where))
        self.register_buffer("tables", torch.empty(0, dtype=torch.int32, device=where), False)
        slopes = None if alibi_slopes is None else alibi_slopes.to(where, torch.float32)
        self.register_buffer("alibi_slopes", slopes, False)
        zeros = nn.Parameter(torch.zeros(heads, device=where)) if sinks else None
        self.register_parameter("sinks", zeros)
        biases = torch.zeros(heads, 2 * relative_bias + 1, device=where) if relative_bias else None
        self.register_parameter("relative_bias", None if biases is None else nn.Parameter(biases))
        self._find_operator()
        self._make_tables()

    @property
    def pattern(self) -> Pattern:
        return self._pattern

    @property
    def plan(self) -> Plan:
        """Of the device where the module is."""
        return _plans.plan(
            heads=self.heads,
            head_dim=self.head_dim,
            length=self.length,
            block=self.block,
            dtype=self.dtype,
            device=self.tables.device,
            scale=self.scale,
            softmax=self.softmax,
            key_padding=self.key_padding,
            key_value_heads=self.key_value_heads,
            causal=self.causal and not self.varlen,
            spans=self.spans,
            dropout=self.dropout,
            key_length=self.key_length,
            softcap=self.softcap,
            alibi=self.alibi_slopes is not None,
            sinks=self.sinks is not None,
            patterns=self.patterns,
            value_dim=self.value_dim,
            relative_bias=_plans.reach_of(self.relative_bias),
            varlen=self.varlen,
            key_starts=self.key_starts,
            score=self.score,
            score_derivative=self.score_derivative,
            typical=self._typical,
            max_blocks=self.max_blocks,
        )

    def set_pattern(self, pattern: Pattern) -> None:
        """Another pattern of the same lengths, block and number of heads' patterns; compiles nothing
        and changes both buffers in place."""
        if (pattern.length, pattern.block) != (self.length, self.block):
            raise UserError(
                f"the pattern is for length {pattern.length} in blocks of {pattern.block}, the "
                f"module for length {self.length} in blocks of {self.block}: make them equal"
            )
        if (pattern.key_length, pattern.patterns) != (self.key_length, self.patterns):
            raise UserError(
                f"the pattern is for {pattern.key_length} keys and has {pattern.patterns} patterns of "
                f"heads, the module for {self.key_length} and {self.patterns}: make them equal"
            )
        # First what can be refused: more blocks than max_blocks.
        _plans.tables(pattern, self.plan, out=self.tables)
        packed = torch.from_numpy(numpy.packbits(pattern.bits(), axis=None))
        with torch.no_grad():
            self.pattern_bits.copy_(packed)
        self._pattern = pattern

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None = None,
        v: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        spans: torch.Tensor | None = None,
        *,
        cu_seqlens: torch.Tensor | None = None,
        key_cu_seqlens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if k is None or v is None:
            if k is not None or v is not None:
                raise UserError("one of k and v is missing: give both, or q, k and v as one tensor")
            return self._forward_packed(q, lengths, spans)
        if q.dtype != self.dtype:
            self._check_autocast("q", q)
            q, k, v = q.to(self.dtype), k.to(self.dtype), v.to(self.dtype)
        if self.varlen or cu_seqlens is not None or key_cu_seqlens is not None:
            return self._of_sequences(q, k, v, spans, cu_seqlens, key_cu_seqlens)
        if (lengths is not None) != self.key_padding or (spans is not None) != self.spans:
            self._refuse_masks(lengths, spans)
        return self.with_lse(q, k, v, lengths, spans)[0]

    def packed(
        self,
        qkv: torch.Tensor,
        lengths: torch.Tensor | None = None,
        spans: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The module called with q, k and v side by side, as one linear layer projects them: [B, L, heads
        + 2 key_value_heads, head_dim], or [B, L, 3, heads, head_dim]. Gives [B, L, heads, head_dim]. The
        gradient of qkv is one tensor, which nothing has to gather (but for modules with dropout, softcap,
        slopes, sinks or patterns of heads, where PyTorch does)."""
        made: torch.Tensor = self(qkv, lengths=lengths, spans=spans)
        return made

    def _forward_packed(
        self, qkv: torch.Tensor, lengths: torch.Tensor | None, spans: torch.Tensor | None
    ) -> torch.Tensor:
        qkv = _packed.as_heads(qkv, self.heads)
        if qkv.dtype != self.dtype:
            self._check_autocast("qkv", qkv)
            qkv = qkv.to(self.dtype)
        if (lengths is not None) != self.key_padding or (spans is not None) != self.spans:
            self._refuse_masks(lengths, spans)
        if self._changes_beside_score:
            return self.with_lse(*_packed.parts(qkv, self.heads), lengths, spans)[0].transpose(1, 2)
        given = (lengths, self.block, self.scale, self.softmax, self.causal, spans)
        tables = self._buffers["tables"]
        expressions = self.score, self.score_derivative
        return torch.ops.spion.packed_attention(qkv, self.heads, tables, *given, *expressions)[0]

    def _check_autocast(self, name: str, x: torch.Tensor) -> None:
        if not torch.is_autocast_enabled(x.device.type):
            raise UserError(
                f"{name} is of {x.dtype} and the module of {self.dtype}: convert one of them"
            )

    def _refuse_masks(self, lengths: torch.Tensor | None, spans: torch.Tensor | None) -> None:
        if (lengths is not None) != self.key_padding:
            raise UserError(
                f"lengths are {'given' if lengths is not None else 'missing'} and the module has "
                f"key_padding={self.key_padding}: give both or none"
            )
        raise UserError(
            f"spans are {'given' if spans is not None else 'missing'} and the module has "
            f"spans={self.spans}: give both or none"
        )

    def with_lse(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        lengths: torch.Tensor | None = None,
        spans: torch.Tensor | None = None,
        drop: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As forward, of tensors of the module's dtype; also lse [B, heads, L]. drop=False drops nothing
        though the module trains."""
        tables = self._buffers["tables"]  # nn.Module's own way to a buffer takes ten times as long
        block, scale, softmax, causal = self.block, self.scale, self.softmax, self.causal
        if not self._general:
            return _op.call(q, k, v, tables, lengths, block, scale, softmax, causal, spans)
        changes = (self.softcap, self.dropout, self.patterns, *self._scores(q.device, drop))
        expressions = self.score, self.score_derivative
        return torch.ops.spion.general_attention(
            q, k, v, tables, lengths, block, scale, softmax, causal, spans, *changes, *expressions
        )

    def _scores(self, device: torch.device, drop: bool = True) -> tuple[torch.Tensor | None, ...]:
        """What a call draws dropout from, slopes, sinks and biases."""
        state = None
        if self.dropout:
            draws = dropout_state if self.training and drop else no_dropout
            state = draws(device)
        learnt = (self.alibi_slopes, self.sinks, self.relative_bias)
        return state, *(None if x is None else x.float() for x in learnt)

    def _of_sequences(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        spans: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        key_cu_seqlens: torch.Tensor | None,
    ) -> torch.Tensor:
        for name, given, option in (
            ("cu_seqlens", cu_seqlens, "varlen"),
            ("key_cu_seqlens", key_cu_seqlens, "key_starts"),
        ):
            if (given is not None) != getattr(self, option):
                raise UserError(
                    f"{name} is {'given' if given is not None else 'missing'} and the module has "
                    f"{option}={getattr(self, option)}: give both or none"
                )
        causal = self.causal and spans is None
        mask = mask_for(spans, causal, self._pattern, cu_seqlens, key_cu_seqlens)
        words = (self.length, self.block, self.scale, self.softmax, self.softcap, self.dropout)
        scores = self._scores(q.device)
        return torch.ops.spion.varlen_attention(
            q, k, v, self._buffers["tables"], cu_seqlens, mask, *words, self.patterns, *scores,
            0, key_cu_seqlens, self.key_length, self.score, self.score_derivative,
        )[0]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if "_general" in self.__dict__:
            self._find_operator()

    def _find_operator(self) -> None:
        """Whether it takes the general operator: known before a call, of which looking at all that decides
        would take a tenth."""
        self.__dict__["_general"] = bool(self.score) or self._changes_beside_score

    @property
    def _changes_beside_score(self) -> bool:
        """Whether a packed call takes it too."""
        return bool(
            self.softcap
            or self.dropout
            or self.patterns > 1
            or self.key_length != self.length
            or self.value_dim != self.head_dim
            or self._buffers["alibi_slopes"] is not None
            or self._parameters["sinks"] is not None
            or self._parameters["relative_bias"] is not None
        )

    def extra_repr(self) -> str:
        return (
            f"heads={self.heads}, head_dim={self.head_dim}, length={self.length}, "
            f"block={self.block}, density={self._pattern.density:.3f}, dtype={self.dtype}"
        )

    def _make_tables(self) -> None:
        device = self.tables.device
        if device.type == "meta":
            return
        with torch.no_grad():
            packed = numpy.packbits(self._pattern.bits(), axis=None)
            self.pattern_bits.copy_(torch.from_numpy(packed))
        self.tables = _plans.tables(self._pattern, self.plan)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        before = self.tables.device
        super()._apply(fn, recurse)
        if self.tables.device != before:  # another plan's; from the device meta, nothing's
            self._make_tables()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        packed = state_dict.get(f"{prefix}pattern_bits")
        if packed is None or packed.shape != self.pattern_bits.shape:
            return  # reported by PyTorch
        rows, columns = -(-self.length // self.block), -(-self.key_length // self.block)
        bits = numpy.unpackbits(
            packed.detach().cpu().numpy(), count=self.patterns * rows * columns
        ).reshape(self.patterns, rows, columns)
        pattern = Pattern.from_bits(
            bits[0] if self.patterns == 1 else bits,
            self.length,
            block=self.block,
            key_length=self.key_length,
        )
        if self.tables.device.type == "meta":
            self._pattern = pattern
        else:
            self.set_pattern(pattern)
