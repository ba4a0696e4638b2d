"""Plans: the compiled forward and backward pass of one shape, called with arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import _arrays, _core
from ._arrays import Array
from ._context import Context, canonical, context as _default_context
from ._core import UserError
from ._pattern import Pattern

DTYPES = {"bf16": 0, "fp16": 1, "fp32": 2, "tf32": 3}
_ORIGINS = ("memory", "bundle", "disk", "compiled")
FORWARD, BACKWARD = 0, 1
HEAD = 16  # numbers at the start of tables, which say whose they are
_KEPT_TABLES = 64  # of a plan, for the patterns used last


@dataclasses.dataclass(frozen=True)
class Attention:
    """The operation: H heads of width D over L positions, whose V and O may be Dv wide.

    dtype: "bf16", "fp16", "fp32" or "tf32" (stored as fp32); the host computes in fp32. scale: of
    Q K^T, 0: 1/sqrt(D). softmax: what is outside the pattern has a score of -inf ("masked", as
    elsewhere) or of 0 ("pruned_zero", as in the SPION paper). key_padding: calls are given the
    number of valid keys of each sample. key_value_heads: of K and V, a divisor of H (0: H of them).
    causal: a query keeps the keys up to its own position. spans: calls are given a mask within
    blocks instead, which spion.spans makes. key_length: Lk, of K and V (0: L); masks are aligned at
    the ends. softcap: above 0, a score s becomes softcap * tanh(s / softcap). alibi: calls are given
    slopes [H], and slope * |i + Lk - L - j| is taken off a score. sinks: calls are given a score a
    head, which is in the softmax sum of every row and belongs to no key. relative_bias: R above 0, up to
    8192: calls are given biases [H, 2R + 1], of which a score gets relative_bias[h, R + d], where d is its
    key's distance j - (i + Lk - L) from its query, limited to -R to R. dropout: of probabilities, 0 or 0.002 to
    0.998, rounded to 1/256; calls are given spion.dropout_state. patterns: 1 for all heads, or one a
    head of K and V, or one a head. value_dim: Dv, of V and O (0: D).
    score: what a score becomes, an expression of score, q, k, head and batch such as
    "30*tanh(score/30)-0.1*log(1+fabs(q-k))" (docs/ir.md); score_derivative: its derivative by score,
    which is checked, or "" to have it derived.
    varlen: sequences of at most L positions lie end to end, nothing padded; calls are given cu_seqlens,
    and spans that spion.spans makes of these and of any other rule. key_starts: with varlen, keys are
    sequences of at most key_length positions of their own; calls are given key_cu_seqlens too.
    sequence_patterns: with varlen, above 0: each sequence has patterns of its own, and a call at most so
    many sequences; its pattern is Pattern.from_heads of the first sequence's, the second's and so on.
    """

    heads: int
    head_dim: int
    length: int
    block: int = 64
    dtype: str = "bf16"
    scale: float = 0.0
    softmax: str = "masked"
    key_padding: bool = False
    key_value_heads: int = 0
    causal: bool = False
    spans: bool = False
    dropout: float = 0.0
    key_length: int = 0
    softcap: float = 0.0
    alibi: bool = False
    sinks: bool = False
    patterns: int = 1
    value_dim: int = 0
    varlen: bool = False
    relative_bias: int = 0
    score: str = ""
    score_derivative: str = ""
    key_starts: bool = False
    sequence_patterns: int = 0

    def core(self) -> _core.Attention:
        for field, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("softmax", self.softmax, _core.SOFTMAXES),
        ):
            if value not in allowed:
                raise UserError(f"{field} is {value!r}: give one of {', '.join(allowed)}")
        return _core.Attention(
            self.heads,
            self.head_dim,
            self.length,
            self.block,
            DTYPES[self.dtype],
            self.scale,
            _core.SOFTMAXES[self.softmax],
            self.key_padding,
            self.key_value_heads,
            self.causal,
            self.spans,
            self.dropout,
            self.key_length,
            self.softcap,
            self.alibi,
            self.sinks,
            self.patterns,
            self.value_dim,
            self.varlen,
            self.relative_bias,
            self.score,
            self.score_derivative,
            self.key_starts,
            self.sequence_patterns,
        )


def dropout_state(seed: int, offset: int = 0, enabled: bool = True) -> Any:
    """What a plan with dropout draws from, as calls take it: int64 of NumPy's, [2]. Which elements
    drop is a function of seed, offset and the element's place alone, on every device. The backward
    call takes its forward call's; another offset draws anew. enabled=False drops nothing, as when a
    model is evaluated."""
    import numpy

    if not 0 <= seed < 2**64 or not 0 <= offset < 2**32:
        raise UserError(f"seed {seed} and offset {offset}: give 64 bits and 32, from 0 on")
    return numpy.array([seed, offset | (2**32 if enabled else 0)], numpy.uint64).view(numpy.int64)


class Plan:
    """Immutable, for every pattern of its length and block; may be shared by threads."""

    def __init__(
        self,
        attention: Attention,
        context: Context,
        *,
        typical: Pattern | None = None,
        max_blocks: int = 0,
        batch: int = 0,
    ) -> None:
        self.attention = attention
        self.context = context
        self.core: _core.Plan = context._core.plan(
            attention.core(), typical._core if typical else None, max_blocks, batch
        )
        self._tables: dict[tuple[str, str], tuple[Array, bytes]] = {}

    @property
    def table_bytes(self) -> int:
        """Of every pattern's tables."""
        return self.core.table_bytes

    @property
    def max_blocks(self) -> int:
        """Most blocks that a pattern may have."""
        return self.core.max_blocks

    @property
    def origin(self) -> str:
        """Where the kernels came from: "memory", "bundle", "disk" or "compiled"."""
        return _ORIGINS[self.core.origin]

    @property
    def milliseconds(self) -> float:
        """That making the plan took."""
        return self.core.milliseconds

    def explain(self) -> str:
        """Kernels, tile shapes, where they came from, and why."""
        return self.core.explain()

    def tables(self, pattern: Pattern) -> Array:
        """The pattern's index tables for this plan: int32 of NumPy's, [table_bytes / 4]."""
        import numpy

        numbers = numpy.empty(self.table_bytes // 4, numpy.int32)
        self.core.write_tables(pattern._core, numbers)
        return numbers

    def forward(
        self,
        q: Array,
        k: Array,
        v: Array,
        pattern: Pattern,
        *,
        lengths: Array | None = None,
        spans: Array | None = None,
        cu_seqlens: Array | None = None,
        dropout_state: Array | None = None,
        alibi_slopes: Array | None = None,
        sinks: Array | None = None,
        relative_bias: Array | None = None,
        key_cu_seqlens: Array | None = None,
        out: Array | None = None,
        stream: int | None = None,
    ) -> tuple[Array, Array]:
        """softmax(scale Q K^T) V over the pattern's blocks.

        q, k, v: [B, H, L, D] with D contiguous, v [B, H, L, Dv]; k and v with their own number of heads
        and key_length. With varlen [H, T, D] and [H, T, Dv], which may be views of [T, H, D], with
        cu_seqlens [B + 1] int32: 0, the row where each further sequence begins, and T; key_cu_seqlens, with
        key_starts, that of k and v. NumPy's are looked at and brought to a GPU; those of a GPU's library are used as they are.
        lengths: [B] int32, with key_padding. spans: int32 of spion.spans, where the plan has them;
        dropout_state: int64 [2] of spion.dropout_state; alibi_slopes, sinks: [H] float32; relative_bias:
        [H, 2R + 1] float32. Returns o (`out` where it is given) [B, H, L, Dv], or [H, T, Dv], and lse [B, H, L] float32, the logarithm of each
        row's softmax sum; beyond a sequence's end it is not written. stream: a CUDA stream as a number;
        None: PyTorch's current stream for its tensors, the legacy default stream for others'. On the
        host the call returns when it is done.
        """
        arrays = self._lent(q=q, k=k, v=v)
        o = self._output(arrays[0], (*q.shape[:-1], v.shape[-1]), out)
        batch, starts, host_starts = self._sequences(q, cu_seqlens)
        _, *of_keys = self._sequences(q, key_cu_seqlens)
        shape = tuple(q.shape[:-1])
        if self.attention.varlen:
            shape = (batch, q.shape[0], self.attention.length)
        lse = _arrays.empty(arrays[0], shape, "float32")
        tables, head = self._tables_like(q, pattern)
        self.core.forward(
            *arrays,
            o,
            lse,
            tables,
            lengths,
            spans,
            self._workspace(q, batch, FORWARD),
            head,
            True,
            stream,
            dropout_state,
            alibi_slopes,
            None if sinks is None else _arrays.lent(sinks),
            starts,
            host_starts,
            None if relative_bias is None else _arrays.lent(relative_bias),
            *of_keys,
        )
        return o, lse

    def backward(
        self,
        d_o: Array,
        q: Array,
        k: Array,
        v: Array,
        o: Array,
        lse: Array,
        pattern: Pattern,
        *,
        lengths: Array | None = None,
        spans: Array | None = None,
        cu_seqlens: Array | None = None,
        dropout_state: Array | None = None,
        alibi_slopes: Array | None = None,
        sinks: Array | None = None,
        relative_bias: Array | None = None,
        key_cu_seqlens: Array | None = None,
        stream: int | None = None,
    ) -> tuple[Array, ...]:
        """The gradients d_q, d_k, d_v, as q, k and v, of the forward call that gave o and lse; and then, of
        a plan with sinks, d_sinks [H] float32, and of one with relative_bias, d_relative_bias
        [H, 2R + 1] float32."""
        arrays = self._lent(d_o=d_o, q=q, k=k, v=v, o=o)
        gradients = [_arrays.empty(like, tuple(like.shape)) for like in arrays[1:4]]
        batch, starts, host_starts = self._sequences(q, cu_seqlens)
        _, *of_keys = self._sequences(q, key_cu_seqlens)
        heads, reach = self.attention.heads, self.attention.relative_bias
        d_sinks = d_bias = None
        if self.attention.sinks:
            d_sinks = _arrays.empty(arrays[1], (heads,), "float32")
        if reach:
            d_bias = _arrays.empty(arrays[1], (heads, 2 * reach + 1), "float32")
        tables, head = self._tables_like(q, pattern)
        self.core.backward(
            *arrays,
            _arrays.lent(lse),
            *gradients,
            tables,
            lengths,
            spans,
            self._workspace(q, batch, BACKWARD),
            head,
            True,
            stream,
            dropout_state,
            alibi_slopes,
            None if sinks is None else _arrays.lent(sinks),
            d_sinks,
            starts,
            host_starts,
            None if relative_bias is None else _arrays.lent(relative_bias),
            d_bias,
            *of_keys,
        )
        return (*gradients, *(x for x in (d_sinks, d_bias) if x is not None))

    def _lent(self, **arrays: Array) -> list[Array]:
        for name, array in arrays.items():
            _arrays.check(array, name)
        return [_arrays.lent(array) for array in arrays.values()]

    def _output(self, like: Array, shape: tuple[int, ...], given: Array | None) -> Array:
        if given is not None:
            _arrays.check(given, "out")
            return given
        return _arrays.empty(like, shape)

    def _tables_like(self, like: Array, pattern: Pattern) -> tuple[Array, bytes]:
        """Tables where `like` is, and their head."""
        key = (pattern.digest, f"{type(like).__module__} {getattr(like, 'device', '')}")
        kept = self._tables.get(key)
        if kept is None:
            numbers = self.tables(pattern)
            head = numbers[:HEAD].tobytes()
            placed = numbers if self.context.name == "cpu" else _arrays.placed_like(like, numbers)
            while len(self._tables) >= _KEPT_TABLES:
                self._tables.pop(next(iter(self._tables)))
            kept = self._tables[key] = (placed, head)
        return kept

    def _sequences(self, like: Array, cu_seqlens: Array | None) -> tuple[int, Any, Any]:
        """B of a call, cu_seqlens where `like` is, and on the host where they are known there."""
        if cu_seqlens is None:
            return int(like.shape[0]), None, None
        import numpy

        if self.context.name != "cpu" and isinstance(cu_seqlens, numpy.ndarray):
            placed = _arrays.placed_like(like, numpy.ascontiguousarray(cu_seqlens))
            return len(cu_seqlens) - 1, placed, cu_seqlens
        return len(cu_seqlens) - 1, cu_seqlens, None

    def _workspace(self, like: Array, batch: int, which: int) -> Array | None:
        if self.context.name == "cpu":
            return None
        bytes_needed, _ = self.core.workspace(batch, which)
        return _arrays.empty(like, (bytes_needed,), "uint8")

    def __repr__(self) -> str:
        return f"Plan({self.attention}, {self.context.name!r}, {self.origin})"


def plan(
    *,
    heads: int,
    head_dim: int,
    length: int,
    block: int = 64,
    dtype: str | None = None,
    device: Any = "cpu",
    scale: float = 0.0,
    softmax: str = "masked",
    key_padding: bool = False,
    key_value_heads: int = 0,
    causal: bool = False,
    spans: bool = False,
    dropout: float = 0.0,
    key_length: int = 0,
    softcap: float = 0.0,
    alibi: bool = False,
    sinks: bool = False,
    patterns: int = 1,
    value_dim: int = 0,
    varlen: bool = False,
    relative_bias: int = 0,
    score: str = "",
    score_derivative: str = "",
    key_starts: bool = False,
    sequence_patterns: int = 0,
    typical: Pattern | None = None,
    max_blocks: int = 0,
    batch: int = 0,
    context: Context | None = None,
) -> Plan:
    """Compiles the kernels of a shape, or finds them; slow, and everything a call needs later.

    dtype: fp32 on the host and bf16 on a GPU where it is not given; Attention says what the other
    fields of the operation are. typical: what patterns will look like, for which tile shapes are
    weighed. max_blocks: most blocks of any pattern (0: all of them), which bounds its tables. batch:
    B that is usual. context: where not the process's own.
    """
    given = dict(locals())  # named as Attention's fields, but for those of the plan
    opened = context or _default_context(canonical(device))
    given["dtype"] = dtype or ("fp32" if opened.name == "cpu" else "bf16")
    attention = Attention(**{x.name: given[x.name] for x in dataclasses.fields(Attention)})
    return Plan(attention, opened, typical=typical, max_blocks=max_blocks, batch=batch)
