"""The shapes at which spion and others are measured, their patterns, what they must reach, and the
least time that the hardware allows. Only the standard library."""

import dataclasses
import random

# An H200: device copy (read and write), dense bf16 matrix products.
BYTES_PER_SECOND = 4.3e12
FLOP_PER_SECOND = 790e12
ELEMENT_BYTES = 2  # bf16
LSE_BYTES = 4  # fp32
PATTERN_SEED = 1
PASSES = ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class Goal:
    """A time, or a rate on the pattern's blocks; exactly one of the two."""

    microseconds: float = None
    teraflops: float = None

    def milliseconds(self, flop):
        """The time that reaches the goal."""
        if self.microseconds is not None:
            return self.microseconds * 1e-3
        return flop / self.teraflops * 1e-9

    def __str__(self):
        if self.microseconds is not None:
            return f"{self.microseconds:g} us"
        return f"{self.teraflops:g} TF"


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    batch: int  # B
    heads: int  # H
    length: int  # L, a multiple of the block
    head_dim: int  # D
    block: int
    density: float  # wanted; 1 is dense
    forward: Goal
    backward: Goal

    @property
    def blocks(self):
        """Block rows, nb."""
        return self.length // self.block

    @property
    def dense(self):
        return self.density == 1

    @property
    def tensor_bytes(self):
        """Of one [B, H, L, D] tensor."""
        return self.batch * self.heads * self.length * self.head_dim * ELEMENT_BYTES

    def goal(self, name):
        return self.forward if name == "forward" else self.backward


def _us(forward, backward):
    return Goal(microseconds=forward), Goal(microseconds=backward)


def _tf(forward, backward):
    return Goal(teraflops=forward), Goal(teraflops=backward)


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


def choose(names):
    """The shapes of these names, in the table's order; all of them for None."""
    if names is None:
        return list(SHAPES)
    known = {shape.name for shape in SHAPES}
    for name in names:
        if name not in known:
            listed = ", ".join(shape.name for shape in SHAPES)
            raise ValueError(f"there is no shape '{name}'; choose among {listed}")
    return [shape for shape in SHAPES if shape.name in names]


def make_pattern(blocks, density, seed):
    """[nb][nb] of 0 and 1: the diagonal, and the best scored other blocks up to the density. A score
    is half the block's own (random blocks) and half its column's (vertical ones)."""
    generator = random.Random(seed)
    popularity = [generator.random() for _ in range(blocks)]
    scores = []
    for row in range(blocks):
        for column in range(blocks):
            score = generator.random() + popularity[column]
            if row != column:
                scores.append((score, row, column))
    scores.sort(reverse=True)
    pattern = [[int(row == column) for column in range(blocks)] for row in range(blocks)]
    for _, row, column in scores[: max(round(density * blocks * blocks) - blocks, 0)]:
        pattern[row][column] = 1
    return pattern


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


def flop(shape, blocks, name):
    """Of matrix products: two forward, five backward, on the pattern's blocks alone."""
    forward = 4 * shape.batch * shape.heads * blocks * shape.block**2 * shape.head_dim
    return forward if name == "forward" else 2.5 * forward


def moved_bytes(shape, name):
    """Forward Q, K, V, O and LSE once; backward Q, K, V, O, dO, dQ, dK, dV and LSE once."""
    tensors = 4 if name == "forward" else 8
    return tensors * shape.tensor_bytes + shape.batch * shape.heads * shape.length * LSE_BYTES


def floor(shape, blocks, name):
    """(milliseconds, what binds): the longer of moving the bytes and doing the products."""
    memory = moved_bytes(shape, name) / BYTES_PER_SECOND * 1e3
    products = flop(shape, blocks, name) / FLOP_PER_SECOND * 1e3
    return (memory, "bytes") if memory >= products else (products, "products")
