"""The shapes at which spion and others are measured, their patterns, what they must reach, and the
least time that the hardware allows. Only the standard library."""

import dataclasses
import json
import random

import masks

# An H200: device copy (read and write), dense bf16 matrix products.
BYTES_PER_SECOND = 4.3e12
FLOP_PER_SECOND = 790e12
ELEMENT_BYTES = 2  # bf16
LSE_BYTES = 4  # fp32
PATTERN_SEED = 1
PASSES = ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class Goal:
    """A time, a rate on the kept elements, or a part of what the fastest of others takes; exactly one
    of the three."""

    microseconds: float = None
    teraflops: float = None
    at_most: float = None
    of: tuple = ()  # with at_most: names of the table's peers or of other shapes

    def milliseconds(self, flop, others):
        """The time that reaches the goal; None while nothing of `others`, {name: milliseconds}, that
        it names was measured."""
        if self.microseconds is not None:
            return self.microseconds * 1e-3
        if self.teraflops is not None:
            return flop / self.teraflops * 1e-9
        measured = [others[name] for name in self.of if name in others]
        return self.at_most * min(measured) if measured else None

    def __str__(self):
        if self.microseconds is not None:
            return f"{self.microseconds:g} us"
        if self.teraflops is not None:
            return f"{self.teraflops:g} TF"
        return f"{self.at_most:.2f} of {', '.join(self.of)}"


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    batch: int  # B
    heads: int  # H
    length: int  # L, a multiple of the block
    head_dim: int  # D
    block: int
    density: float  # wanted; 1 is dense
    forward: Goal  # None: others are held against this shape
    backward: Goal
    causal: bool = False
    window: int = None  # keys that a query keeps to its left; with causal
    documents: tuple = ()  # lengths of documents end to end; the density is of what they keep
    kv_heads: int = 0  # 0: as many as heads
    pattern_a_head: bool = False
    dropout: float = 0

    @property
    def blocks(self):
        """Block rows, nb."""
        return self.length // self.block

    @property
    def dense(self):
        return self.density == 1

    @property
    def masked(self):
        """Whether the pattern's blocks have elements that are not kept."""
        return self.causal or bool(self.documents)

    @property
    def tensor_bytes(self):
        """Of one [B, H, L, D] tensor."""
        return self.batch * self.heads * self.length * self.head_dim * ELEMENT_BYTES

    @property
    def options(self):
        """What differs from plain attention on blocks, in words."""
        words = ["causal"] * self.causal
        words += [f"window {self.window}"] * (self.window is not None)
        words += [f"{len(self.documents)} documents"] * bool(self.documents)
        words += [f"{self.kv_heads} heads of K and V"] * bool(self.kv_heads)
        words += ["a pattern a head"] * self.pattern_a_head
        words += [f"dropout {self.dropout:g}"] * bool(self.dropout)
        return ", ".join(words)

    def goal(self, name):
        return self.forward if name == "forward" else self.backward

    def faces(self, peer):
        """Whether a peer is measured: each where a time or a rate is wanted, otherwise whom the goal
        names."""
        if self.forward is None:
            return False
        return self.forward.at_most is None or peer in self.forward.of


def _us(forward, backward):
    return Goal(microseconds=forward), Goal(microseconds=backward)


def _tf(forward, backward):
    return Goal(teraflops=forward), Goal(teraflops=backward)


def _at_most(part, *of):
    return 2 * (Goal(at_most=part, of=of),)


NO_GOALS = None, None

# name, B, H, L, D, block, density, goals
SHAPES = (
    Shape("retrieval", 32, 2, 4096, 32, 64, 0.03, *_us(25, 70)),
    Shape("listops", 256, 2, 2048, 32, 64, 0.05, *_us(85, 240)),
    Shape("image", 128, 2, 1024, 32, 32, 0.05, *_us(25, 75)),
    Shape("16k-128-b128", 2, 16, 16384, 128, 128, 0.10, *_tf(560, 450)),
    Shape("16k-64-b128", 2, 16, 16384, 64, 128, 0.10, *_tf(460, 360)),
    Shape("16k-128-b64", 2, 16, 16384, 128, 64, 0.10, *_tf(480, 380)),
    Shape("16k-64-b64", 2, 16, 16384, 64, 64, 0.10, *_tf(440, 320)),
    Shape("16k-64-b32", 2, 16, 16384, 64, 32, 0.05, *_tf(240, 180)),
    Shape("dense-8k-128", 2, 16, 8192, 128, 128, 1, *_tf(600, 480)),
    Shape("dense-8k-64", 2, 16, 8192, 64, 128, 1, *_tf(450, 370)),
)


# The same with masks, grouped heads, patterns of heads, dropout, and other head dimensions.
_LONG = 2, 16, 16384, 64, 64, 0.10
_GROUPED = 2, 32, 16384, 128, 64, 0.10
_DOCUMENTS = masks.document_lengths(16384, 2048, PATTERN_SEED)
MASKED_SHAPES = (
    Shape("causal-8k-128", 2, 16, 8192, 128, 128, 1, *_at_most(1 / 1.05, "fa4", "cudnn"), causal=True),
    Shape("causal-8k-64", 2, 16, 8192, 64, 128, 1, *_at_most(1 / 1.05, "fa4", "cudnn"), causal=True),
    Shape(
        "window-32k-128", 1, 16, 32768, 128, 128, 1, *_at_most(1 / 1.1, "flex", "fa4"),
        causal=True, window=1024,
    ),
    Shape("documents-16k-64", *_LONG, *_at_most(1 / 1.5, "flex"), documents=_DOCUMENTS),
    Shape("heads-32-on-32", *_GROUPED, *NO_GOALS),
    Shape("heads-32-on-8", *_GROUPED, *_at_most(1, "heads-32-on-32"), kv_heads=8),
    Shape("shared-pattern", *_LONG, *NO_GOALS),
    Shape("pattern-a-head", *_LONG, *_at_most(1.05, "shared-pattern"), pattern_a_head=True),
    Shape("dropout", *_LONG, *_at_most(1.25, "shared-pattern"), dropout=0.1),
    Shape("width-128", 2, 16, 8192, 128, 64, 0.10, *NO_GOALS),
    Shape("width-80", 2, 16, 8192, 80, 64, 0.10, *_at_most(1, "width-128")),
    Shape("width-96", 2, 16, 8192, 96, 64, 0.10, *_at_most(1, "width-128")),
    Shape("width-192", 2, 16, 8192, 192, 64, 0.10, *NO_GOALS),
    Shape("width-160", 2, 16, 8192, 160, 64, 0.10, *_at_most(1, "width-192")),
)  # fmt: skip


def choose(names, default=SHAPES):
    """The shapes of these names, in the tables' order; the default for None."""
    if names is None:
        return list(default)
    every = SHAPES + MASKED_SHAPES
    known = {shape.name for shape in every}
    for name in names:
        if name not in known:
            listed = ", ".join(shape.name for shape in every)
            raise ValueError(f"there is no shape '{name}'; choose among {listed}")
    return [shape for shape in every if shape.name in names]


def make_pattern(blocks, density, seed, tiles=None):
    """[nb][nb] of 0 and 1: the diagonal, and the best scored other blocks up to the density. A score
    is half the block's own (random blocks) and half its column's (vertical ones). With `tiles`, a
    masks.coverage(), only of blocks that a mask keeps something of, and the density is of these."""
    generator = random.Random(seed)
    popularity = [generator.random() for _ in range(blocks)]
    scores = []
    for row in range(blocks):
        for column in range(blocks):
            score = generator.random() + popularity[column]
            if row != column and (tiles is None or tiles[row][column] != masks.EMPTY):
                scores.append((score, row, column))
    scores.sort(reverse=True)
    pattern = [[int(row == column) for column in range(blocks)] for row in range(blocks)]
    for _, row, column in scores[: max(round(density * (len(scores) + blocks)) - blocks, 0)]:
        pattern[row][column] = 1
    return pattern


def patterns_of(shape):
    """One for all heads or one for each, every one a make_pattern()."""
    tiles = masks.coverage(shape, shape.block) if shape.documents else None
    count = shape.heads if shape.pattern_a_head else 1
    return [
        make_pattern(shape.blocks, shape.density, PATTERN_SEED + head, tiles)
        for head in range(count)
    ]


def patterns_text(shape, patterns):
    """What `spion --pattern` reads: pattern_text() of one, JSON of several."""
    if len(patterns) == 1:
        return pattern_text(patterns[0])
    return json.dumps(
        [
            {"length": shape.length, "block": shape.block, "pattern": pattern_text(p).split()}
            for p in patterns
        ]
    )


def pattern_text(pattern):
    """What `spion --pattern` reads: a line a block row, a character a block."""
    return "".join("".join(map(str, row)) + "\n" for row in pattern)


def parse_pattern(text):
    rows = [[int(bit) for bit in line] for line in text.split()]
    if not rows or any(len(row) != len(rows) or not {0, 1}.issuperset(row) for row in rows):
        raise ValueError("a pattern is nb lines of nb characters 0 or 1")
    return rows


def count_blocks(pattern):
    return sum(map(sum, pattern))


def kept_blocks(shape, patterns):
    """Of one head in the mean, counted by the elements that the mask keeps."""
    if not shape.masked:
        return sum(map(count_blocks, patterns)) / len(patterns)
    kept = sum(masks.kept_elements(shape, pattern) for pattern in patterns)
    return kept / len(patterns) / shape.block**2


def flop(shape, blocks, name):
    """Of matrix products: two forward, five backward, on what is kept of the pattern alone."""
    forward = 4 * shape.batch * shape.heads * blocks * shape.block**2 * shape.head_dim
    return forward if name == "forward" else 2.5 * forward


def moved_bytes(shape, name):
    """Forward Q, K, V, O and LSE once; backward Q, K, V, O, dO, dQ, dK, dV and LSE once."""
    tensors = 2 if name == "forward" else 4  # of as many heads as Q has, and as K has
    share = 1 + (shape.kv_heads or shape.heads) / shape.heads
    return tensors * share * shape.tensor_bytes + shape.batch * shape.heads * shape.length * LSE_BYTES


def floor(shape, blocks, name):
    """(milliseconds, what binds): the longer of moving the bytes and doing the products."""
    memory = moved_bytes(shape, name) / BYTES_PER_SECOND * 1e3
    products = flop(shape, blocks, name) / FLOP_PER_SECOND * 1e3
    return (memory, "bytes") if memory >= products else (products, "products")
