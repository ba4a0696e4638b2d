"""Attention in float64, from the formulas of ir/attention.h; shares nothing with spion."""

import numpy as np

TOLERANCE = 2e-5  # of fp32: relative to the largest element


def kept_by(rules, batch, length):
    """[B, L, L]: whether query i keeps key j, by the words of spion.spans."""
    i, j = np.arange(length)[None, :, None], np.arange(length)[None, None, :]
    kept = np.ones((batch, length, length), bool)
    if rules.get("causal"):
        prefixes = np.asarray(rules.get("prefixes", np.zeros(batch, int)))
        kept &= (j <= i) | (j < prefixes[:, None, None])
    if rules.get("left") is not None:
        kept &= j >= i - rules["left"]
    if rules.get("right") is not None:
        kept &= j <= i + rules["right"]
    if rules.get("documents") is not None:
        ids = np.asarray(rules["documents"])
        kept &= ids[:, :, None] == ids[:, None, :]
    if rules.get("query_lengths") is not None:
        kept &= i < np.asarray(rules["query_lengths"])[:, None, None]
    return kept


def _parts(q, k, bits, block, softmax, lengths, rules):
    """Probabilities [B, H, L, L] and LSE [B, H, L]; k repeated for the heads that share it."""
    batch, _, length, width = q.shape
    scores = np.float64(q) @ np.float64(k).swapaxes(-1, -2) / np.sqrt(width)
    inside = np.kron(bits, np.ones((block, block)))[:length, :length] > 0
    keys = np.full(batch, length) if lengths is None else np.asarray(lengths)
    valid = np.arange(length)[None, :] < keys[:, None]
    kept = inside[None, None] & valid[:, None, None, :]
    allowed = kept_by(rules or {}, batch, length)[:, None]
    kept = np.broadcast_to(kept & allowed, scores.shape)
    outside = (allowed & ~inside[None, None]).sum(-1)[..., None]
    pruned = outside if softmax == "pruned_zero" else 0
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


def _repeated(x, heads):
    return np.repeat(np.float64(x), heads // x.shape[1], axis=1)


def attention(q, k, v, bits, block, softmax="masked", lengths=None, rules=None):
    """o [B, H, L, D] and lse [B, H, L]. rules: the arguments of spion.spans."""
    k, v = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    probabilities, lse = _parts(q, k, bits, block, softmax, lengths, rules)
    return probabilities @ v, lse


def attention_gradients(d_o, q, k, v, bits, block, softmax="masked", lengths=None, rules=None):
    """d_q, d_k, d_v, the last two summed over the query heads that share a head."""
    batch, heads, length, width = q.shape
    shared = k.shape[1]
    k, v = _repeated(k, heads), _repeated(v, heads)
    probabilities, _ = _parts(q, k, bits, block, softmax, lengths, rules)
    d_o, q = np.float64(d_o), np.float64(q)
    d_p = d_o @ v.swapaxes(-1, -2)
    delta = (d_p * probabilities).sum(-1, keepdims=True)
    d_s = probabilities * (d_p - delta) / np.sqrt(q.shape[-1])

    def summed(x):
        return x.reshape(batch, shared, heads // shared, length, width).sum(2)

    d_k, d_v = d_s.swapaxes(-1, -2) @ q, probabilities.swapaxes(-1, -2) @ d_o
    return d_s @ k, summed(d_k), summed(d_v)


def close(given, wanted, tolerance=TOLERANCE):
    given, wanted = np.float64(given), np.float64(wanted)
    assert given.shape == wanted.shape
    assert np.array_equal(np.isneginf(given), np.isneginf(wanted))
    finite = np.isfinite(wanted)
    scale = max(1.0, np.abs(wanted[finite]).max(initial=0))
    worst = np.abs(given[finite] - wanted[finite]).max(initial=0)
    assert worst <= tolerance * scale, f"off by {worst:.2e}, with elements up to {scale:.2e}"
