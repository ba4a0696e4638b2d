"""Modules, compilation, checkpoints, the schedule and FlexAttention's masks, on the host."""

import numpy as np
import pytest
import torch
from oracle import attention, close
from torch import nn

import spion
import spion.torch as st

BLOCK, HEADS, WIDTH, LENGTH = 32, 2, 16, 128


def random_pattern(seed=0, length=LENGTH, density=0.4):
    rows = -(-length // BLOCK)
    bits = np.random.default_rng(seed).random((rows, rows)) < density
    return spion.Pattern.from_bits(bits | np.eye(rows, dtype=bool), length, block=BLOCK)


class Layer(nn.Module):
    def __init__(self, pattern):
        super().__init__()
        self.qkv = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        self.out = nn.Linear(HEADS * WIDTH, HEADS * WIDTH)
        self.attention = st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
        o = self.attention(q, k, v)
        return x + self.out(o.transpose(1, 2).reshape(batch, length, -1))


def model(count, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(Layer(random_pattern(seed)) for seed in range(count)))


class CountGraphs:
    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize("whole", [False, True])
def test_twelve_layers_with_their_own_patterns_are_one_graph(whole):
    torch._dynamo.reset()
    layers = model(12)
    x = torch.randn(1, LENGTH, HEADS * WIDTH, requires_grad=True)  # as what later layers are given
    wanted = layers(x)
    counter = CountGraphs()
    if whole:
        compiled = torch.compile(layers, backend=counter, fullgraph=True)
    else:
        compiled = nn.Sequential(
            *(torch.compile(layer, backend=counter, fullgraph=True) for layer in layers)
        )
    assert torch.equal(compiled(x), wanted)
    assert counter.graphs == 1
    for index, layer in enumerate(layers):
        layer.attention.set_pattern(random_pattern(100 + index))
    assert torch.equal(compiled(x), layers(x)) and not torch.equal(compiled(x), wanted)
    assert counter.graphs == 1


def test_compiled_training_step_equals_eager():
    torch._dynamo.reset()
    layers, x = model(2), torch.randn(2, LENGTH, HEADS * WIDTH)
    layers(x).square().mean().backward()
    wanted = [p.grad.clone() for p in layers.parameters()]
    layers.zero_grad()
    torch.compile(layers, fullgraph=True)(x).square().mean().backward()
    for parameter, gradient in zip(layers.parameters(), wanted):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_pattern_is_part_of_the_state():
    first, second = Layer(random_pattern(1)), Layer(random_pattern(2))
    tables = second.attention.tables
    assert "attention.pattern_bits" in first.state_dict()
    assert "attention.tables" not in first.state_dict()
    second.load_state_dict(first.state_dict())
    assert second.attention.pattern == random_pattern(1)
    assert second.attention.tables is tables  # in place, for graphs that were captured
    x = torch.randn(1, LENGTH, HEADS * WIDTH)
    assert torch.equal(first(x), second(x))


def test_a_module_from_the_device_meta():
    with torch.device("meta"):
        layer = st.BlockSparseAttention(random_pattern(3), heads=HEADS, head_dim=WIDTH)
    assert layer.tables.is_meta
    layer = layer.to_empty(device="cpu")
    q, k, v = (torch.randn(1, HEADS, LENGTH, WIDTH) for _ in range(3))
    assert torch.equal(layer(q, k, v), st.attention(q, k, v, random_pattern(3)))


def test_module_against_float64_with_padding():
    pattern = random_pattern(4)
    layer = st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH, key_padding=True)
    q, k, v = (torch.randn(2, HEADS, LENGTH, WIDTH) for _ in range(3))
    lengths = torch.tensor([LENGTH, 40], dtype=torch.int32)
    o = layer(q, k, v, lengths)
    close(o, attention(q, k, v, pattern.bits(), BLOCK, "masked", lengths)[0])
    with pytest.raises(ValueError, match="lengths are missing"):
        layer(q, k, v)


def test_a_module_refuses_what_it_cannot_take():
    layer = st.BlockSparseAttention(random_pattern(), heads=HEADS, head_dim=WIDTH, max_blocks=12)
    kept = layer.tables.clone()
    with pytest.raises(ValueError, match="16 blocks"):
        layer.set_pattern(spion.Pattern.full(LENGTH, block=BLOCK))
    assert torch.equal(layer.tables, kept) and layer.pattern == random_pattern()
    with pytest.raises(ValueError, match="make them equal"):
        layer.set_pattern(spion.Pattern.full(2 * LENGTH, block=BLOCK))
    q = torch.randn(1, HEADS, LENGTH, WIDTH, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="convert one of them"):
        layer(q, q, q)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(q, q, q).dtype == torch.float32


def test_schedule():
    """The rule, by distances that are set; then each layer's own pattern, found in its map."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(Layer(spion.Pattern.full(256, block=BLOCK)) for _ in range(2)))
    schedule = st.SpionSchedule(layers, quantile=0.7, percent=15)
    x = torch.randn(1, 256, HEADS * WIDTH)
    with pytest.raises(ValueError, match="call observe first"):
        schedule.turn_sparse()
    with pytest.raises(ValueError, match="0 of 2"):
        schedule.observe(lambda: None)
    answers = []
    for scale in (1.0, 1.1, 1.2, 1.3, 3.0):
        answers.append(schedule.observe(lambda: layers(scale * x)))
    assert answers[:2] == [False, False] and len(schedule.changes) == 2
    maps = [found.copy() for found in schedule._maps]
    q, k, _ = layers[0].qkv(3.0 * x).view(1, 256, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
    dense = torch.softmax(q.double() @ k.double().mT / WIDTH**0.5, -1).mean((0, 1))
    wanted = spion.discover(dense.detach().float(), block=BLOCK, quantile=0.7)
    found = schedule.turn_sparse()
    assert found[0] == wanted == layers[0].attention.pattern
    assert found[0].density < 1 and schedule.sparse and len(maps) == 2
    with pytest.raises(ValueError, match="sparse already"):
        schedule.observe(lambda: layers(x))


def test_the_rule_of_the_schedule():
    layers = nn.Sequential(Layer(spion.Pattern.full(LENGTH, block=BLOCK)))
    schedule = st.SpionSchedule(layers, percent=15)

    def judge(position):
        before, schedule._maps = schedule._maps, [np.array([[float(position)]])]
        return schedule._judge(before)

    # Distances 1, 2 (100 per cent), 2.31 (15.5, truncated to 15), 2.5 (8.2), 0, 0, 1.
    answers = [judge(at) for at in (0, 1, 3, 5.31, 7.81, 7.81, 7.81, 8.81)]
    assert answers == [False, False, False, False, True, False, True, False]
    with pytest.raises(ValueError, match="diverged"):
        judge(np.nan)


def test_learning_rate_restarts():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1e-5)
    scheduler = st.SpionSchedule.restart(optimizer, steps=10, peak=1e-3, warmup=0.3)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < 10:
            scheduler.step()
    assert max(rates) == pytest.approx(1e-3) and rates.index(max(rates)) == 2
    assert rates[0] == pytest.approx(4e-5) and rates[-1] < 1e-6


def test_block_masks():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    pattern = random_pattern(5, length=256)
    mask = st.to_block_mask(pattern)
    assert st.from_block_mask(mask) == pattern
    q, k, v = (torch.randn(1, HEADS, 256, WIDTH) for _ in range(3))
    compiled = torch.compile(flex_attention)(q, k, v, block_mask=mask)
    torch.testing.assert_close(compiled, st.attention(q, k, v, pattern), rtol=1e-4, atol=1e-5)
    window = create_block_mask(
        lambda b, h, i, j: (i - j).abs() < 40, None, None, 256, 256, "cpu", BLOCK_SIZE=BLOCK
    )
    bits = st.from_block_mask(window).bits()
    assert np.array_equal(bits, np.abs(np.subtract.outer(range(8), range(8))) <= 2)
    heads = create_block_mask(
        lambda b, h, i, j: i >= j * (h + 1), 1, 2, 256, 256, "cpu", BLOCK_SIZE=BLOCK
    )
    with pytest.raises(ValueError, match="differs between samples or heads"):
        st.from_block_mask(heads)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"spans": True}, "has spans, and discovery pools the whole map or a causal one"),
        ({"varlen": True}, "has varlen, and discovery pools maps of one length"),
        ({"relative_bias": 4}, "has relative_bias, and discovery pools"),
    ],
)
def test_a_schedule_says_what_it_cannot_look_at(options, sentence):
    full = spion.Pattern.full(LENGTH, block=BLOCK)
    layer = st.BlockSparseAttention(full, heads=HEADS, head_dim=WIDTH, **options)
    q, k, v = torch.randn(3, 1, HEADS, LENGTH, WIDTH)
    given = (*(x[0].transpose(0, 1) for x in (q, k, v)),) if layer.varlen else (q, k, v)
    beside = {"cu_seqlens": torch.tensor([0, LENGTH], dtype=torch.int32)} if layer.varlen else {}
    if layer.spans:
        beside["spans"] = st.spans(1, LENGTH, causal=True)
    assert layer(*given, **beside).shape == given[0].shape
    with pytest.raises(spion.UserError, match=sentence):
        st.SpionSchedule(layer).observe(lambda: layer(*given, **beside))
