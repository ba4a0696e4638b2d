"""Attention in float64, from the formulas of ir/attention.h; shares nothing with spion."""

import numpy as np

TOLERANCE = 2e-5  # of fp32: relative to the largest element


def _parts(q, k, bits, block, softmax, lengths):
    """Probabilities [B, H, L, L] and LSE [B, H, L]."""
    batch, _, length, width = q.shape
    scores = np.float64(q) @ np.float64(k).swapaxes(-1, -2) / np.sqrt(width)
    inside = np.kron(bits, np.ones((block, block)))[:length, :length] > 0
    keys = np.full(batch, length) if lengths is None else np.asarray(lengths)
    valid = np.arange(length)[None, :] < keys[:, None]
    kept = inside[None, None] & valid[:, None, None, :]
    kept = np.broadcast_to(kept, scores.shape)
    pruned = (length - inside.sum(-1))[None, None, :, None] if softmax == "pruned_zero" else 0
    scores = np.where(kept, scores, -np.inf)
    largest = scores.max(-1, keepdims=True)
    if softmax == "pruned_zero":
        largest = np.maximum(largest, 0)
    largest = np.where(np.isfinite(largest), largest, 0)
    weights = np.exp(scores - largest)
    total = weights.sum(-1, keepdims=True) + pruned * np.exp(-largest)
    none = ~kept.any(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = np.log(total) + largest
    return np.where(none, 0, weights / np.where(total == 0, 1, total)), lse[..., 0]


def attention(q, k, v, bits, block, softmax="masked", lengths=None):
    """o [B, H, L, D] and lse [B, H, L]."""
    probabilities, lse = _parts(q, k, bits, block, softmax, lengths)
    return probabilities @ np.float64(v), lse


def attention_gradients(d_o, q, k, v, bits, block, softmax="masked", lengths=None):
    """d_q, d_k, d_v."""
    probabilities, _ = _parts(q, k, bits, block, softmax, lengths)
    d_o, q, k, v = (np.float64(x) for x in (d_o, q, k, v))
    d_p = d_o @ v.swapaxes(-1, -2)
    delta = (d_p * probabilities).sum(-1, keepdims=True)
    d_s = probabilities * (d_p - delta) / np.sqrt(q.shape[-1])
    return d_s @ k, d_s.swapaxes(-1, -2) @ q, probabilities.swapaxes(-1, -2) @ d_o


def close(given, wanted, tolerance=TOLERANCE):
    given, wanted = np.float64(given), np.float64(wanted)
    assert given.shape == wanted.shape
    assert np.array_equal(np.isneginf(given), np.isneginf(wanted))
    finite = np.isfinite(wanted)
    scale = max(1.0, np.abs(wanted[finite]).max(initial=0))
    worst = np.abs(given[finite] - wanted[finite]).max(initial=0)
    assert worst <= tolerance * scale, f"off by {worst:.2e}, with elements up to {scale:.2e}"
