"""Masks within blocks and grouped heads, through NumPy and the operator, against float64."""

import numpy as np
import pytest
import torch
from oracle import attention, attention_gradients, close

import spion
import spion.torch as st

BLOCK, LENGTH, BATCH, HEADS, WIDTH = 32, 120, 2, 4, 16
DOCUMENTS = np.repeat([[0, 1, 4, 5], [2, 2, 3, 9]], 30, axis=1)
RULES = {
    "causal": {"causal": True},
    "window": {"left": 20, "right": 3},
    "causal_window": {"causal": True, "left": 40},
    "documents": {"documents": DOCUMENTS},
    "packed_decoder": {"causal": True, "documents": DOCUMENTS, "query_lengths": [120, 71]},
    "prefix": {"causal": True, "prefixes": [50, 0]},
    "padded_queries": {"query_lengths": [0, 33]},
}


def random_pattern(seed=0):
    rows = -(-LENGTH // BLOCK)
    bits = np.random.default_rng(seed).random((rows, rows)) < 0.6
    return spion.Pattern.from_bits(bits | np.eye(rows, dtype=bool), LENGTH, block=BLOCK)


def problem(key_value_heads=HEADS, seed=0):
    """q, k, v, d_o."""
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, heads, LENGTH, WIDTH) for heads in (HEADS, key_value_heads, key_value_heads)]
    return [rng.standard_normal(s).astype(np.float32) for s in (*shapes, shapes[0])]


@pytest.mark.parametrize("softmax", ["masked", "pruned_zero"])
@pytest.mark.parametrize("name", RULES)
def test_rules_meet_float64(name, softmax):
    rules, pattern = RULES[name], random_pattern()
    q, k, v, d_o = problem(2)
    lengths = np.array([LENGTH, 90], np.int32)
    rest = (pattern.bits(), BLOCK, softmax, lengths, rules)
    wanted = [*attention(q, k, v, *rest), *attention_gradients(d_o, q, k, v, *rest)]
    mask = spion.spans(BATCH, LENGTH, **rules)
    plan = spion.plan(
        heads=HEADS,
        head_dim=WIDTH,
        length=LENGTH,
        block=BLOCK,
        softmax=softmax,
        key_padding=True,
        key_value_heads=2,
        spans=True,
    )
    beside = {"lengths": lengths, "spans": mask}
    o, lse = plan.forward(q, k, v, pattern, **beside)
    gradients = plan.backward(d_o, q, k, v, o, lse, pattern, **beside)
    for given, right in zip((o, lse, *gradients), wanted, strict=True):
        close(given, right)
    leaves = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    made, made_lse = st.attention_with_lse(
        *leaves,
        pattern,
        lengths=torch.from_numpy(lengths),
        softmax=softmax,
        spans=st.spans(BATCH, LENGTH, **rules),
    )
    made.backward(torch.from_numpy(d_o))
    assert np.array_equal(made.detach(), o) and np.array_equal(made_lse.detach(), lse)
    for leaf, given in zip(leaves, gradients):
        assert np.array_equal(leaf.grad, given)


@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
def test_causal_and_grouped_heads(key_value_heads):
    q, k, v, d_o = problem(key_value_heads)
    pattern = random_pattern()
    rest = (pattern.bits(), BLOCK, "masked", None, {"causal": True})
    leaves = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    o = st.attention(*leaves, pattern, causal=True)
    o.backward(torch.from_numpy(d_o))
    close(o.detach(), attention(q, k, v, *rest)[0])
    for leaf, wanted in zip(leaves, attention_gradients(d_o, q, k, v, *rest)):
        close(leaf.grad, wanted)


def test_opcheck_and_one_graph():
    layers = torch.nn.ModuleList(
        st.BlockSparseAttention(
            random_pattern(seed),
            heads=HEADS,
            head_dim=WIDTH,
            key_value_heads=2,
            spans=True,
        )
        for seed in range(3)
    )
    q, k, v, _ = (torch.from_numpy(x).requires_grad_() for x in problem(2))
    mask = st.spans(BATCH, LENGTH, causal=True, left=50)
    words = (BLOCK, 0.0, "masked", False, mask)
    torch.library.opcheck(torch.ops.spion.attention, (q, k, v, layers[0].tables, None, *words))

    def run(q, k, v):
        for layer in layers:
            q = layer(q, k, v, spans=mask)
        return q

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    (given,) = torch.autograd.grad(compiled(q, k, v).square().sum(), k)
    (wanted,) = torch.autograd.grad(run(q, k, v).square().sum(), k)
    assert torch.equal(given, wanted)


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("sparse", [False, True])
def test_block_masks_with_full_and_partial_blocks(window, sparse):
    from torch.nn.attention.flex_attention import create_block_mask

    length = 128  # create_block_mask of PyTorch 2.15 takes whole blocks
    bits = torch.from_numpy(np.random.default_rng(3).random((4, 4)) < 0.5) | torch.eye(4).bool()

    def keeps(batch, head, query, key):
        kept = query >= key
        if window is not None:
            kept = kept & (key > query - window)
        if sparse:
            kept = kept & bits[query // BLOCK, key // BLOCK]
        return kept

    mask = create_block_mask(keeps, None, None, length, length, device="cpu", BLOCK_SIZE=BLOCK)
    assert window is not None or sparse or int(mask.full_kv_num_blocks.sum()) == 6
    pattern, spans = st.from_block_mask(mask), st.spans_of_block_mask(mask, BATCH)
    q, k, v, _ = (torch.randn(BATCH, 2, length, WIDTH) for _ in range(4))
    i = torch.arange(length)
    dense = keeps(None, None, i[:, None], i[None, :])
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense)
    close(st.attention(q, k, v, pattern, spans=spans), wanted)


def test_block_masks_with_gaps_are_refused():
    from torch.nn.attention.flex_attention import create_block_mask

    def odd(batch, head, query, key):
        return (query + key) % 2 == 0

    mask = create_block_mask(odd, None, None, 64, 64, device="cpu", BLOCK_SIZE=BLOCK)
    with pytest.raises(ValueError, match="with gaps between them"):
        st.spans_of_block_mask(mask, 1)


def test_what_is_wrong_is_said():
    q, k, v, _ = (torch.from_numpy(x) for x in problem())
    pattern = random_pattern()
    with pytest.raises(ValueError, match="spans are not"):
        st.attention(q, k, v, pattern, spans=st.spans(BATCH + 1, LENGTH))
    with pytest.raises(ValueError, match="asks for spans and for causal"):
        st.attention(q, k, v, pattern, causal=True, spans=st.spans(BATCH, LENGTH))
    with pytest.raises(ValueError, match="3 heads of K and V"):
        st.attention(q, k[:, :3], v[:, :3], pattern)
    with pytest.raises(ValueError, match="document id 1 follows 2"):
        spion.spans(1, 4, documents=[[0, 2, 1, 1]])
    with pytest.raises(ValueError, match="prefix was given without causal"):
        spion.spans(2, 4, prefixes=[1, 2])
    with pytest.raises(ValueError, match="documents has not one number for each position"):
        spion.spans(2, 4, documents=[[1, 2, 3, 4]])
    with pytest.raises(ValueError, match="of float64: give integers"):
        spion.spans(1, 2, prefixes=[0.5])
    layer = st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH)
    with pytest.raises(ValueError, match="spans are given and the module has spans=False"):
        layer(q, k, v, spans=st.spans(BATCH, LENGTH))
