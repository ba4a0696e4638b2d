"""Attention of heads that lie side by side: the numbers, bits and gradients of the operator that takes three
tensors, and one tensor as its gradient."""

import numpy as np
import pytest
import torch
from oracle import attention, attention_gradients, close

import spion
import spion.torch as st
from spion.torch import _packed

BLOCK, HEADS, LENGTH, WIDTH, BATCH = 32, 4, 90, 16, 3
OPERATOR = torch.ops.spion.packed_attention.default
BACKWARD = torch.ops.spion.packed_attention_backward.default


def random_pattern(seed=0):
    rows = -(-LENGTH // BLOCK)
    bits = np.random.default_rng(seed).random((rows, rows)) < 0.6
    return spion.Pattern.from_bits(bits, LENGTH, block=BLOCK)


def random_heads(shared=HEADS, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(BATCH, LENGTH, HEADS + 2 * shared, WIDTH, generator=generator)
    return made.requires_grad_(grad)


def apart(qkv):
    return [x.detach().clone().requires_grad_() for x in _packed.parts(qkv, HEADS)]


def side_by_side(gradients):
    return torch.cat([x.transpose(1, 2) for x in gradients], 2)


def words(layer):
    return HEADS, layer.tables, None, BLOCK, 0.0, "masked", False, None


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shared", [HEADS, 2])
def test_equals_float64(shared, padded):
    qkv, pattern = random_heads(shared, seed=shared, grad=True), random_pattern()
    lengths = torch.tensor([90, 0, 41], dtype=torch.int32) if padded else None
    o = st.packed_attention(
        qkv, pattern, key_value_heads=shared, lengths=lengths, softmax="pruned_zero"
    )
    d_o = torch.randn(o.shape, generator=torch.Generator().manual_seed(1))
    o.backward(d_o)
    case = [x.detach().numpy() for x in apart(qkv)]
    rest = pattern.bits(), BLOCK, "pruned_zero", None if lengths is None else lengths.numpy()
    assert o.shape == (BATCH, LENGTH, HEADS, WIDTH) and o.is_contiguous()
    close(o.detach().transpose(1, 2), attention(*case, *rest)[0])
    wanted = attention_gradients(d_o.transpose(1, 2).numpy(), *case, *rest)
    for given, right in zip(_packed.parts(qkv.grad, HEADS), wanted):
        close(given, right)


@pytest.mark.parametrize("gaps", [None, "of heads", "of elements"])
@pytest.mark.parametrize("mask", ["causal", "spans"])
def test_same_bits_as_of_three_tensors(mask, gaps):
    qkv, pattern = random_heads(2), random_pattern(1)
    if gaps == "of heads":
        qkv = torch.cat([qkv, qkv], 3)[..., :WIDTH]
    elif gaps == "of elements":  # which no kernel reads
        qkv = qkv.mT.contiguous().mT
    qkv.requires_grad_()
    rules = {"causal": True}
    if mask == "spans":
        rules = {"spans": st.spans(BATCH, LENGTH, left=40)}
    packed = st.packed_attention(qkv, pattern, key_value_heads=2, **rules)
    three = apart(qkv)
    o = st.attention(*three, pattern, **rules)
    assert torch.equal(packed, o.transpose(1, 2))
    d_o = torch.randn(packed.shape)
    (found,) = torch.autograd.grad(packed, qkv, d_o)
    wanted = torch.autograd.grad(o, three, d_o.transpose(1, 2))
    assert torch.equal(found, side_by_side(wanted))


def test_three_sizes_of_one_tensor():
    pattern = random_pattern()
    qkv = torch.randn(BATCH, LENGTH, 3, HEADS, WIDTH)
    o = st.packed_attention(qkv, pattern)
    assert torch.equal(o, st.packed_attention(qkv.flatten(2, 3), pattern))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    assert torch.equal(o, st.attention(q, k, v, pattern).transpose(1, 2))


@pytest.mark.parametrize("shared", [HEADS, 2])
def test_opcheck(shared):
    layer = st.BlockSparseAttention(
        random_pattern(), heads=HEADS, head_dim=WIDTH, key_value_heads=shared
    )
    qkv = random_heads(shared, grad=True)
    torch.library.opcheck(OPERATOR, (qkv, *words(layer)))
    o, lse = OPERATOR(qkv.detach(), *words(layer))
    torch.library.opcheck(BACKWARD, (torch.ones_like(o), qkv.detach(), o, lse, *words(layer)))


def test_known_plans_take_the_direct_way(monkeypatch):
    layer = st.BlockSparseAttention(random_pattern(), heads=HEADS, head_dim=WIDTH)
    qkv = random_heads()

    def passes():
        o, lse = OPERATOR(qkv, *words(layer))
        return o, lse, BACKWARD(torch.ones_like(o), qkv, o, lse, *words(layer))

    first = passes()

    def refuse(*_):
        raise AssertionError("the plan is looked for again")

    monkeypatch.setattr(_packed, "find", refuse)
    assert all(torch.equal(x, y) for x, y in zip(first, passes()))


class Block(torch.nn.Module):
    def __init__(self, seed, **options):
        super().__init__()
        torch.manual_seed(seed)
        self.project = torch.nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        self.attention = st.BlockSparseAttention(
            random_pattern(seed), heads=HEADS, head_dim=WIDTH, **options
        )

    def forward(self, x, packed=True):
        qkv = self.project(x).view(*x.shape[:2], 3, HEADS, WIDTH)
        if packed:
            return self.attention.packed(qkv).flatten(2)
        return self.attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "sinks": True}])
def test_the_module(options):
    layer, x = Block(3, **options), torch.randn(BATCH, LENGTH, HEADS * WIDTH)
    o = layer(x)
    assert torch.equal(o, layer(x, packed=False))
    gradients = [
        torch.autograd.grad(layer(x, packed).square().sum(), list(layer.parameters()))
        for packed in (True, False)
    ]
    for found, wanted in zip(*gradients):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_compiled_step_gathers_no_gradients():
    """AOTAutograd's graph of the backward pass has the operator's one gradient, and nothing that puts
    several together."""
    from torch._dynamo.backends.common import aot_autograd

    graphs = []

    def keep(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    torch._dynamo.reset()
    layers, x = torch.nn.Sequential(Block(1), Block(2)), torch.randn(BATCH, LENGTH, HEADS * WIDTH)
    layers(x).square().mean().backward()
    wanted = [p.grad.clone() for p in layers.parameters()]
    layers.zero_grad()
    compiled = torch.compile(
        layers, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep), fullgraph=True
    )
    compiled(x).square().mean().backward()
    for parameter, gradient in zip(layers.parameters(), wanted):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    forward, backward = graphs
    assert forward.count("spion.packed_attention.default") == 2
    assert backward.count("spion.packed_attention_backward.default") == 2
    gathering = ("cat", "stack", "select_backward", "slice_backward", "select_scatter")
    assert not [name for name in backward if any(word in name for word in gathering)]


def test_autocast():
    pattern, qkv = random_pattern(), random_heads().bfloat16()
    layer = st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH)
    wanted = layer.packed(qkv.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.packed(qkv), wanted)
        assert torch.equal(st.packed_attention(qkv, pattern), wanted)
    with pytest.raises(spion.UserError, match="qkv is of torch.bfloat16 and the module of"):
        layer.packed(qkv)


def test_a_schedule_sees_the_same_maps():
    found = []
    x = torch.randn(BATCH, LENGTH, HEADS * WIDTH)
    for packed in (True, False):
        layer = Block(5)
        layer.attention.set_pattern(spion.Pattern.full(LENGTH, block=BLOCK))
        schedule = st.SpionSchedule(layer, quantile=0.6)
        schedule.observe(lambda: layer(x, packed))
        found.append((schedule._maps[0], schedule.turn_sparse()))
    assert np.array_equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert found[0][1][0].density < 1


def test_what_is_refused():
    pattern = random_pattern()
    layer = st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH)
    for shape in (
        (BATCH, LENGTH, HEADS, WIDTH),
        (BATCH, LENGTH, HEADS + 3, WIDTH),
        (BATCH, LENGTH),
    ):
        with pytest.raises(spion.UserError, match="give .B, L, H . 2 Hkv, D., the heads of q"):
            layer.packed(torch.randn(shape))
        with pytest.raises(spion.UserError, match="give .B, L, H . 2 Hkv, D., the heads of q"):
            OPERATOR(torch.randn(shape), *words(layer))
    with pytest.raises(spion.UserError, match="the tables were written for another plan"):
        OPERATOR(random_heads(2), *words(layer))
    with pytest.raises(spion.UserError, match="one of k and v is missing"):
        layer(random_heads(), random_heads())
    with pytest.raises(spion.UserError, match="lengths are given"):
        layer.packed(random_heads(), lengths=torch.full((BATCH,), LENGTH, dtype=torch.int32))
    qkv = random_heads(grad=True)
    (gradient,) = torch.autograd.grad(layer.packed(qkv).sum(), qkv, create_graph=True)
    with pytest.raises(spion.UserError, match="cannot be differentiated twice"):
        gradient.sum().backward()
