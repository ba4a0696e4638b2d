"""Which elements of a map a shape's mask keeps: causal, a window to the left, documents that lie end
to end. Every query keeps one span of keys. Only the standard library."""

import random

EMPTY, PARTIAL, FULL = range(3)  # what a mask keeps of a tile


def document_lengths(length, mean, seed):
    """Of documents of `mean` positions on average that fill `length`, cut anywhere."""
    count = length // mean
    cuts = sorted(random.Random(seed).sample(range(1, length), count - 1))
    return tuple(end - begin for begin, end in zip([0, *cuts], [*cuts, length]))


def document_ids(shape):
    """[L], the number of each position's document; one document of everything without any."""
    lengths = shape.documents or (shape.length,)
    return [number for number, length in enumerate(lengths) for _ in range(length)]


def spans(shape):
    """[L] of (first key, one past the last key). What consecutive queries keep leaves no gap."""
    result, begin = [], 0
    for length in shape.documents or (shape.length,):
        for query in range(begin, begin + length):
            first = begin if shape.window is None else max(begin, query - shape.window)
            result.append((first, query + 1 if shape.causal else begin + length))
        begin += length
    return result


def coverage(shape, size):
    """[L / size][L / size] of EMPTY, PARTIAL or FULL for tiles of this size."""
    rows, result = spans(shape), []
    for top in range(0, shape.length, size):
        firsts, ends = zip(*rows[top : top + size])
        some, every = (min(firsts), max(ends)), (max(firsts), min(ends))
        result.append([])
        for left in range(0, shape.length, size):
            touched = some[0] < left + size and left < some[1]
            whole = every[0] <= left and left + size <= every[1]
            result[-1].append(FULL if whole else PARTIAL if touched else EMPTY)
    return result


def kept_elements(shape, pattern):
    """Elements of one head's pattern that the mask keeps."""
    rows, size, total = spans(shape), shape.block, 0
    for r, tiles in enumerate(coverage(shape, size)):
        for c, tile in enumerate(tiles):
            if pattern[r][c] and tile == FULL:
                total += size**2
            elif pattern[r][c] and tile == PARTIAL:
                total += sum(
                    max(min(end, (c + 1) * size) - max(first, c * size), 0)
                    for first, end in rows[r * size : (r + 1) * size]
                )
    return total
