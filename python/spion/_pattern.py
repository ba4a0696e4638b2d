"""Which blocks of the attention map are computed, and how they are found."""

from __future__ import annotations

from typing import Any, Sequence

from . import _core
from ._arrays import Array
from ._core import UserError

_VARIANTS = {"cf": 0, "f": 1, "c": 2}


class Pattern:
    """Immutable: `length` L, `block` (16, 32, 64 or 128) and a bit for each of the nb x nb blocks,
    nb = ceil(L / block). Rows are query blocks, columns key blocks, of which there may be another number
    (key_length). A layer whose heads have patterns of their own takes from_heads of them."""

    __slots__ = ("_core", "digest", "__weakref__")

    def __init__(self, core: _core.Pattern) -> None:
        self._core = core
        self.digest: str = core.digest

    @staticmethod
    def from_bits(
        bits: Array, length: int | None = None, *, block: int = 64, key_length: int | None = None
    ) -> Pattern:
        """bits: [nb, nb], not 0 = computed; or [heads, nb, nb]. length: nb * block where it is not
        given. key_length: of keys in another number than queries, for bits [nb, nbk]."""
        numbers = _bytes(bits)
        if numbers.ndim == 3:
            each = [Pattern.from_bits(x, length, block=block, key_length=key_length) for x in numbers]
            return Pattern.from_heads(each)
        if numbers.ndim != 2:
            raise UserError(f"the bits have shape {numbers.shape}: give [nb, nb] or [heads, nb, nb]")
        queries = length or numbers.shape[0] * block
        if key_length is None:
            return Pattern(_core.Pattern.from_bits(queries, block, numbers))
        return Pattern(_core.Pattern.from_cross_bits(queries, key_length, block, numbers))

    @staticmethod
    def from_heads(heads: Sequence[Pattern]) -> Pattern:
        """One a head of K and V, or one a head, in order: of equal lengths and block."""
        return Pattern(_core.Pattern.from_heads([head._core for head in heads]))

    @staticmethod
    def from_dense(mask: Array, *, block: int = 64) -> Pattern:
        """mask: [L, L], not 0 = may be attended to. A block that has any such element is computed
        whole, as there are no masks within a block here."""
        import numpy

        dense = _bytes(mask)
        if dense.ndim != 2 or dense.shape[0] != dense.shape[1]:
            raise UserError(f"the mask has shape {dense.shape}: give [L, L]")
        length = dense.shape[0]
        edges = numpy.arange(0, length, block)
        bits = numpy.maximum.reduceat(numpy.maximum.reduceat(dense, edges, axis=0), edges, axis=1)
        return Pattern.from_bits(bits, length, block=block)

    @staticmethod
    def from_text(text: str, length: int | None = None, *, block: int = 64) -> Pattern:
        """A line of 0 and 1 for each row of blocks, what `text` gives."""
        rows = len(text.split())
        return Pattern(_core.Pattern.from_text(length or rows * block, block, text))

    @staticmethod
    def full(length: int, *, block: int = 64, key_length: int | None = None) -> Pattern:
        """Every block: dense attention."""
        if key_length in (None, length):
            return Pattern(_core.Pattern.full(length, block))
        import numpy

        bits = numpy.ones((-(-length // block), -(-key_length // block)), numpy.uint8)
        return Pattern.from_bits(bits, length, block=block, key_length=key_length)

    @staticmethod
    def from_csr(
        offsets: Array, columns: Array, length: int | None = None, *, block: int = 64
    ) -> Pattern:
        """Compressed rows: row I has columns[offsets[I]:offsets[I + 1]]."""
        import numpy

        starts = numpy.ascontiguousarray(offsets, numpy.int32)
        entries = numpy.ascontiguousarray(columns, numpy.int32)
        return Pattern(
            _core.Pattern.from_csr(length or (len(starts) - 1) * block, block, starts, entries)
        )

    @staticmethod
    def from_layout(layout: Array, length: int | None = None, *, block: int = 64) -> Pattern:
        """A layout of DeepSpeed's sparse attention, [heads, nb, nb]; also a base_blockmask of
        Block-Sparse-Attention, [B, heads, nb, nb] with block=128, the same for every sample. Heads that
        differ have patterns of their own."""
        numbers = _bytes(layout)
        if numbers.ndim == 4:
            if not (numbers == numbers[:1]).all():
                raise UserError("samples of the base_blockmask differ: a plan has one for them all")
            numbers = numbers[0]
        if numbers.ndim != 3:
            raise UserError(f"the layout has shape {numbers.shape}: give [heads, nb, nb]")
        if not (numbers == numbers[:1]).all():
            return Pattern.from_bits(numbers, length, block=block)
        return Pattern(
            _core.Pattern.from_layout(length or numbers.shape[1] * block, block, numbers)
        )

    @staticmethod
    def from_flex(block_mask: Any, length: int | None = None) -> Pattern:
        """A BlockMask of FlexAttention whose heads and samples have one mask. Its partly masked
        blocks are taken whole: what `mask_mod` hides within a block counts here."""
        import numpy

        block, block_of_keys = block_mask.BLOCK_SIZE
        if block != block_of_keys:
            raise UserError(
                f"the BlockMask has blocks of {block} x {block_of_keys}: make it with square ones"
            )
        given = block_mask.seq_lengths if hasattr(block_mask, "seq_lengths") else None
        if length is None and given is not None and given[0] != given[1]:
            raise UserError(
                f"the BlockMask is of {given[0]} queries and {given[1]} keys: equal ones"
            )
        arrays = []
        for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"):
            tensor = getattr(block_mask, name)
            if tensor is None:
                arrays.append(None)
                continue
            flat = tensor.detach().cpu().numpy()
            flat = flat.reshape(-1, *flat.shape[2:])  # [B * H, rows] or [B * H, rows, pitch]
            if not (flat == flat[:1]).all():
                raise UserError(
                    f"{name} of the BlockMask differs between samples or heads, and a pattern is "
                    "one for them all: make it with B=None, H=None"
                )
            arrays.append(numpy.ascontiguousarray(flat[0], numpy.int32))
        whole = length or (given[0] if given is not None else arrays[0].shape[0] * block)
        return Pattern(_core.Pattern.from_block_mask(whole, block, *arrays))

    @property
    def length(self) -> int:
        return self._core.length

    @property
    def block(self) -> int:
        return self._core.block

    @property
    def rows(self) -> int:
        """nb."""
        return self._core.rows

    @property
    def key_length(self) -> int:
        """Lk."""
        return self._core.key_length

    @property
    def columns(self) -> int:
        """nbk = ceil(Lk / block)."""
        return self._core.columns

    @property
    def patterns(self) -> int:
        """1, or one a head."""
        return self._core.patterns

    @property
    def imbalance(self) -> float:
        """The fullest head's blocks over the mean: 1 where all have as many."""
        return self._core.imbalance

    def head(self, index: int) -> Pattern:
        """That of one head."""
        return Pattern(self._core.head(index))

    @property
    def block_count(self) -> int:
        """Computed blocks, of all heads."""
        return self._core.block_count

    @property
    def density(self) -> float:
        """Computed elements / all; of several patterns, their mean."""
        return self._core.density

    @property
    def text(self) -> str:
        return self._core.text()

    def bits(self) -> Array:
        """[nb, nbk] of NumPy's uint8, or [patterns, nb, nbk] of several; 1 = computed."""
        import numpy

        bits = numpy.empty((self.patterns, self.rows, self.columns), numpy.uint8)
        self._core.write_bits(bits)
        return bits[0] if self.patterns == 1 else bits

    def transpose(self) -> Pattern:
        """Keys attend to queries."""
        return Pattern(self._core.transpose())

    def to_art(self, columns: int = 64) -> str:
        """A picture for terminals, two rows of blocks a line."""
        return self._core.picture(columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.patterns > 1:
            return Pattern.from_heads, ([self.head(index) for index in range(self.patterns)],)
        if self.key_length != self.length:
            return _from_bits, (self.bits(), self.length, self.block, self.key_length)
        return _from_text, (self.text, self.length, self.block)

    def __repr__(self) -> str:
        keys = "" if self.key_length == self.length else f", key_length={self.key_length}"
        heads = "" if self.patterns == 1 else f", patterns={self.patterns}"
        return (
            f"Pattern(length={self.length}{keys}, block={self.block}{heads}, "
            f"density={self.density:.3f})"
        )


def _from_text(text: str, length: int, block: int) -> Pattern:
    return Pattern.from_text(text, length, block=block)


def _from_bits(bits: Array, length: int, block: int, key_length: int) -> Pattern:
    return Pattern.from_bits(bits, length, block=block, key_length=key_length)


def _bytes(array: Array) -> Any:
    """1 where it is not 0, as NumPy's contiguous uint8."""
    import numpy

    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return numpy.ascontiguousarray(numpy.asarray(array) != 0).view(numpy.uint8)


def discover(
    scores: Array,
    *,
    block: int = 64,
    variant: str = "cf",
    filter: int = 31,
    quantile: float = 0.96,
    density: float = 0.04,
    length: int | None = None,
) -> Pattern:
    """The pattern in a score map: diagonal convolution, pooling, quantile and flood fill (SPION).

    scores: [L, L] mean probabilities of dense attention; or, with `length`, the pooled map
    [nb, nb]. variant: "cf" (all of it), "f" (no convolution), "c" (no flood fill: the `density` of
    blocks with most weight).
    """
    import numpy

    wanted = settings(block, variant, filter, quantile, density)
    if length is not None:
        pooled = numpy.ascontiguousarray(scores, numpy.float64)
        return Pattern(_core.discover_pooled(wanted, length, pooled))
    return Pattern(_core.discover_scores(wanted, numpy.ascontiguousarray(scores, numpy.float32)))


def settings(
    block: int, variant: str, filter: int, quantile: float, density: float
) -> _core.Discovery:
    if variant not in _VARIANTS:
        raise UserError(f"variant is {variant!r}: give one of {', '.join(_VARIANTS)}")
    return _core.Discovery(block, _VARIANTS[variant], filter, quantile, density)
