"""Attention with everything that it may have, in float64 with PyTorch's gradients: from the formulas of
ir/attention.h; what dropout draws from the words of kernels/random.h. Shares nothing with spion."""

import numpy as np
import torch


def philox(counters, seed, rounds=7):
    """Philox 4x32 (Salmon et al., 2011) of arrays of four counters."""
    c = [np.uint64(0) + x.astype(np.uint64) for x in counters]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    low = np.uint64(0xFFFFFFFF)
    for _ in range(rounds):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high0, high1 = p0 >> np.uint64(32), p1 >> np.uint64(32)
        c = [high1 ^ c[1] ^ np.uint64(k0), p1 & low, high0 ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def kept_factors(dropout, seed, offset, batch, heads, length, keys):
    """[B, H, L, Lk]: 0, or 256 over those of 256 bytes that keep."""
    dropped = round(256 * dropout)
    shape = (batch * heads, length, keys)
    n, i, j = (x.astype(np.uint64) for x in np.indices(shape))
    counters = [i // 16 * 4 + i % 8 // 2, j // 16 * 4 + j % 8 // 2, n, np.full(shape, offset)]
    words = np.stack(philox(counters, seed))
    word = np.take_along_axis(words, (i % 2 * 2 + j % 2).astype(np.int64)[None], 0)[0]
    byte = word >> (8 * (i // 8 % 2 * 2 + j // 8 % 2)) & np.uint64(0xFF)
    kept = np.where(byte < dropped, 0.0, 256 / (256 - dropped))
    return torch.from_numpy(kept).reshape(batch, heads, length, keys)


def attention(q, k, v, bits, block, *, causal=False, softcap=0.0, slopes=None, sinks=None,
              bias=None, factors=None, pruned_zero=False, change=None):
    """o and lse of float64 tensors; bits [patterns, nb, nbk]; change: of scores [B, H, L, Lk]."""
    heads, length, keys = q.shape[1], q.shape[2], k.shape[2]
    k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[3] ** 0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if change is not None:
        scores = change(scores)
    place = torch.arange(length)[:, None] + keys - length
    distance = place - torch.arange(keys)
    if slopes is not None:
        scores = scores - slopes[:, None, None] * distance.abs()
    if bias is not None:
        reach = bias.shape[1] // 2
        scores = scores + bias[:, reach - distance.clamp(-reach, reach)]
    inside = torch.from_numpy(np.kron(bits, np.ones((1, block, block)))[:, :length, :keys] > 0)
    inside = inside.repeat_interleave(heads // len(bits), 0)
    allowed = distance >= 0 if causal else torch.ones(length, keys, dtype=torch.bool)
    kept = (inside & allowed).expand(scores.shape)
    weights = torch.where(kept, scores, -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if pruned_zero:
        total = total + (allowed & ~inside).sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.exp()[:, None, None]
    p = weights / torch.where(total == 0, 1, total)
    return (p if factors is None else p * factors) @ v, total.log()[..., 0]


def pooled_map(scores, block, edge):
    """[L, L] in float64, NaN for what a mask drops: the mean over each block's elements of the sums along
    their diagonals; NaN for a block without any (SPION, section 2; docs/formats.md)."""
    length = len(scores)
    half = edge // 2
    summed = np.zeros_like(scores)
    for shift in range(-half, edge - half):
        there = slice(max(shift, 0), length + min(shift, 0))
        here = slice(max(-shift, 0), length + min(-shift, 0))
        summed[here, here] += np.nan_to_num(scores[there, there])
    summed[np.isnan(scores)] = np.nan
    starts = range(0, length, block)
    tiles = [[summed[i : i + block, j : j + block] for j in starts] for i in starts]
    return np.array([[np.nan if np.isnan(x).all() else np.nanmean(x) for x in row] for row in tiles])


def flood_fill(pooled, threshold):
    """The pattern's bits [nb, nb]: a walk from each block of the first row and column to the largest of
    the blocks below, to the right and across, across where none is larger; and the diagonal."""
    count = len(pooled)
    grid = np.zeros((count + 1, count + 1))
    grid[:count, :count] = np.where(np.isnan(pooled), -np.inf, pooled)
    bits = np.eye(count, dtype=bool)
    for row, column in [(0, n) for n in range(count)] + [(n, 0) for n in range(count)]:
        while row < count and column < count:
            below, right = grid[row + 1, column], grid[row, column + 1]
            across = grid[row + 1, column + 1]
            down = below > right and below > across
            aside = not down and right > below and right > across
            row, column = row + (not aside), column + (not down)
            if row < count and column < count and grid[row, column] > threshold:
                bits[row, column] = True
    return bits
