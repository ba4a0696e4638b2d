"""Users' expressions of scores through every way into PyTorch on the host: against float64, whose changes
of scores are written as functions of tensors, and FlexAttention's score_mod."""

import numpy as np
import pytest
import reference
import torch
from oracle import close
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import spion
import spion.torch as st
from spion.torch import _general, _packed

BLOCK, HEADS, LENGTH, WIDTH, BATCH = 32, 4, 128, 16, 2
# The text, and the same as FlexAttention's score_mod.
EXPRESSIONS = {
    "cap": ("30*tanh(score/30)", lambda s, b, h, q, k: 30 * torch.tanh(s / 30)),
    "distance": (
        "score-0.1*log(1+fabs(q-k))",
        lambda s, b, h, q, k: s - 0.1 * torch.log(1 + (q - k).abs()),
    ),
    "heads": (
        "score*(1+head)/4-0.01*(head+1)*fabs(q-k)",
        lambda s, b, h, q, k: s * (1 + h) / 4 - 0.01 * (h + 1) * (q - k).abs(),
    ),
    "samples": (
        "batch < 1 ? score : 2*sigmoid(score)",
        lambda s, b, h, q, k: torch.where(b < 1, s, 2 * torch.sigmoid(s)),
    ),
    "near and far": (
        "q-k < 20 ? max(score, -1) : 0.5*score+exp(-score*score)",
        lambda s, b, h, q, k: torch.where(
            q - k < 20, torch.clamp(s, min=-1.0), 0.5 * s + torch.exp(-s * s)
        ),
    ),
}
TEXT, FUNCTION = EXPRESSIONS["heads"]


def change_of(function):
    """The same of scores [B, H, L, Lk]."""

    def change(scores):
        b, h, q, k = (torch.arange(size) for size in scores.shape)
        places = b[:, None, None, None], h[:, None, None], q[:, None], k
        return function(scores, *places)

    return change


def tensors(shared=HEADS, seed=0, grad=True, length=LENGTH):
    """q, k, v and d_o."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(BATCH, heads, length, WIDTH) for heads in (HEADS, shared, shared, HEADS)]
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    return [*(x.requires_grad_(grad) for x in made[:3]), made[3]]


def random_pattern(seed=0, length=LENGTH):
    rows = -(-length // BLOCK)
    bits = np.random.default_rng(seed).random((rows, rows)) < 0.6
    return spion.Pattern.from_bits(bits | np.eye(rows, dtype=bool), length, block=BLOCK)


def wanted(q, k, v, d_o, pattern, function, **words):
    """o, lse and the gradients in float64."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    o, lse = reference.attention(
        *leaves, pattern.bits()[None], BLOCK, change=change_of(function), **words
    )
    return [x.detach() for x in (o, lse, *torch.autograd.grad(o, leaves, d_o.double()))]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_equals_float64(name):
    text, function = EXPRESSIONS[name]
    q, k, v, d_o = tensors(shared=2, length=90)
    pattern = random_pattern(length=90)
    for causal in (False, True):
        o, lse = st.attention_with_lse(q, k, v, pattern, causal=causal, score=text)
        gradients = torch.autograd.grad(o, (q, k, v), d_o)
        right = wanted(q, k, v, d_o, pattern, function, causal=causal)
        for made, expected in zip((o.detach(), lse.detach(), *gradients), right, strict=True):
            close(made, expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_equals_score_mod_of_flex_attention(name):
    text, function = EXPRESSIONS[name]
    q, k, v, _ = tensors(grad=False)
    pattern = random_pattern()
    bits = torch.from_numpy(pattern.bits()).bool()

    def inside(b, h, i, j):
        return bits[i // BLOCK, j // BLOCK] & (i >= j)

    mask = create_block_mask(inside, None, None, LENGTH, LENGTH, "cpu", BLOCK_SIZE=BLOCK)
    theirs = flex_attention(q, k, v, score_mod=function, block_mask=mask)
    close(st.attention(q, k, v, pattern, causal=True, score=text), theirs)
    assert not torch.allclose(theirs, flex_attention(q, k, v, block_mask=mask), atol=1e-3)


def test_a_derivative_of_ones_own_is_taken():
    q, k, v, d_o = tensors()
    pattern = random_pattern()
    own = {"score": "3*tanh(score/3)", "score_derivative": "1-tanh(score/3)*tanh(score/3)"}
    right = wanted(q, k, v, d_o, pattern, lambda s, *_: 3 * torch.tanh(s / 3))
    o = st.attention(q, k, v, pattern, **own)
    for made, expected in zip((o.detach(), *torch.autograd.grad(o, (q, k, v), d_o)), [right[0], *right[2:]]):
        close(made, expected)


def test_beside_everything_else():
    """Keys of another number, wider values, slopes, sinks, a bias, dropout and patterns of heads."""
    numbers = torch.Generator().manual_seed(4)
    q, _, _, _ = tensors(length=90)
    k = torch.randn(BATCH, 2, 130, WIDTH, generator=numbers).requires_grad_()
    v = torch.randn(BATCH, 2, 130, 24, generator=numbers).requires_grad_()
    sinks = torch.randn(HEADS, generator=numbers).requires_grad_()
    bias = torch.randn(HEADS, 9, generator=numbers).requires_grad_()
    slopes, state = torch.rand(HEADS, generator=numbers) / 8, spion.dropout_state(5, 9)
    bits = np.random.default_rng(1).random((2, 3, 5)) < 0.7
    pattern = spion.Pattern.from_bits(bits, 90, block=BLOCK, key_length=130)
    given = {"alibi_slopes": slopes, "sinks": sinks, "relative_bias": bias}
    o = st.attention(
        q, k, v, pattern, causal=True, score=TEXT, dropout=0.2,
        dropout_state=torch.from_numpy(state), **given,
    )
    d_o = torch.randn(o.shape, generator=numbers)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v, sinks, bias)]
    right, _ = reference.attention(
        *wide[:3], bits, BLOCK, causal=True, slopes=slopes.double(), sinks=wide[3], bias=wide[4],
        factors=reference.kept_factors(0.2, 5, 9, BATCH, HEADS, 90, 130), change=change_of(FUNCTION),
    )
    close(o.detach(), right.detach())
    made = torch.autograd.grad(o, (q, k, v, sinks, bias), d_o)
    for one, expected in zip(made, torch.autograd.grad(right, wide, d_o.double()), strict=True):
        close(one, expected)


def general(text=TEXT, derivative="", seed=0):
    """The arguments of spion::general_attention."""
    q, k, v, _ = tensors(shared=2)
    plan = st.plan(
        heads=HEADS, head_dim=WIDTH, length=LENGTH, block=BLOCK, key_value_heads=2, score=text,
        score_derivative=derivative,
    )
    tables = st.tables(random_pattern(seed), plan)
    words = (tables, None, BLOCK, 0.0, "masked", False, None, 0.0, 0.0, 1, None, None, None, None)
    return q, k, v, *words, text, derivative


def packed(text=TEXT):
    """Those of spion::packed_attention."""
    q, k, v, *words = general(text)
    qkv = torch.cat([x.detach().transpose(1, 2) for x in (q, k, v)], 2).requires_grad_()
    return qkv, HEADS, *words[:7], text


def sequences(text=TEXT):
    """Those of spion::varlen_attention, of sequences of 90, 0 and 60 positions."""
    starts = torch.tensor([0, 90, 90, 150], dtype=torch.int32)
    plan = st.plan(heads=HEADS, head_dim=WIDTH, length=LENGTH, block=BLOCK, varlen=True, score=text)
    q, k, v = (torch.randn(150, HEADS, WIDTH).requires_grad_() for _ in range(3))
    spans = st.spans(3, LENGTH, cu_seqlens=starts.numpy(), causal=True)
    tables = st.tables(random_pattern(), plan)
    words = (LENGTH, BLOCK, 0.0, "masked", 0.0, 0.0, 1, None, None, None, None, 0, None, 0)
    return q, k, v, tables, starts, spans, *words, text


OPERATORS = {
    "general_attention": general,
    "packed_attention": packed,
    "varlen_attention": sequences,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name):
    operator = getattr(torch.ops.spion, name).default
    torch.library.opcheck(operator, OPERATORS[name]())


@pytest.mark.parametrize("name", OPERATORS)
def test_compiled_graphs_give_the_same_bits(name):
    operator, arguments = getattr(torch.ops.spion, name), OPERATORS[name]()
    leaves = [x for x in arguments[:3] if isinstance(x, torch.Tensor) and x.requires_grad]

    def step(first, *rest):
        return operator(2 * first, *rest)[0].square()

    torch._dynamo.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    right, made = step(*arguments), compiled(*arguments)
    assert torch.equal(made, right)
    for one, expected in zip(*(torch.autograd.grad(x.sum(), leaves) for x in (made, right))):
        assert torch.equal(one, expected) and expected.abs().max() > 0


def test_plans_of_one_shape_are_told_apart_by_their_expressions(monkeypatch):
    """In any order of calls, the second ones being one call of the library each."""
    texts = ["", "score*0.5", "score*0.25", TEXT]
    calls = [[x.detach() if isinstance(x, torch.Tensor) else x for x in general(t)] for t in texts]
    forward, backward = torch.ops.spion.general_attention, torch.ops.spion.general_attention_backward

    def passes(arguments):
        o, lse = forward(*arguments)
        return o, lse, *backward(torch.ones_like(o), *arguments[:3], o, lse, *arguments[3:])

    first = [passes(arguments) for arguments in calls]
    for one in range(len(texts)):
        for other in range(one):
            assert not torch.allclose(first[one][0], first[other][0], atol=1e-3)

    def refuse(*_):
        raise AssertionError("the plan is looked for again")

    monkeypatch.setattr(_general, "find", refuse)
    for index in (3, 1, 0, 2):
        for made, right in zip(passes(calls[index]), first[index], strict=True):
            assert torch.equal(made, right)


def test_packed_heads_have_the_bits_of_three_tensors(monkeypatch):
    pattern = random_pattern()
    (qkv, *_), (q, k, v, *_) = packed(), general()
    d_o = torch.randn(BATCH, LENGTH, HEADS, WIDTH)
    o = st.attention(q, k, v, pattern, score=TEXT)
    right = torch.autograd.grad(o, (q, k, v), d_o.transpose(1, 2))
    for known in (False, True):
        if known:
            monkeypatch.setattr(_packed, "find", None)
        made = st.packed_attention(qkv, pattern, key_value_heads=2, score=TEXT)
        assert torch.equal(made.transpose(1, 2), o)
        (gradient,) = torch.autograd.grad(made, qkv, d_o)
        assert torch.equal(gradient, torch.cat([x.transpose(1, 2) for x in right], 2))


def test_sequences_number_positions_from_each_ones_first():
    q, k, v, _, starts, *_ = sequences()
    pattern = random_pattern()
    o = st.varlen_attention(q, k, v, pattern, starts, causal=True, score=TEXT)
    d_o = torch.randn(o.shape)
    made = torch.autograd.grad(o, (q, k, v), d_o)
    for begin, end in ((0, 90), (90, 150)):
        alone = [x[begin:end].detach().transpose(0, 1)[None] for x in (q, k, v, d_o)]
        right = wanted(*alone, pattern, FUNCTION, causal=True)
        close(o[begin:end].detach().transpose(0, 1)[None], right[0])
        for one, expected in zip(made, right[2:], strict=True):
            close(one[begin:end].transpose(0, 1)[None], expected)


@pytest.mark.parametrize("options", [{}, {"sinks": True}])
def test_a_module(options):
    layer = st.BlockSparseAttention(
        random_pattern(), heads=HEADS, head_dim=WIDTH, key_value_heads=2, causal=True, score=TEXT,
        **options,
    )
    q, k, v, d_o = tensors(shared=2)
    given = {name: getattr(layer, name) for name in options}
    o = layer(q, k, v)
    assert torch.equal(o, st.attention(q, k, v, layer.pattern, causal=True, score=TEXT, **given))
    qkv = torch.cat([x.transpose(1, 2) for x in (q, k, v)], 2)
    assert torch.equal(layer.packed(qkv).transpose(1, 2), o)
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=count, fullgraph=True)
    for seed in (1, 2):
        layer.set_pattern(random_pattern(seed))
        made, right = compiled(q, k, v), layer(q, k, v)
        assert torch.equal(made, right)
        found = [torch.autograd.grad(x, (q, k, v), d_o) for x in (made, right)]
        assert all(torch.equal(x, y) for x, y in zip(*found))
    assert len(graphs) == 1
    with torch.autocast("cpu", torch.bfloat16):
        half = [x.detach().bfloat16() for x in (q, k, v)]
        assert torch.equal(layer(*half), layer(*(x.float() for x in half)))
    program = torch.export.export(layer, (q, k, v))
    assert torch.equal(program.module()(q, k, v), layer(q, k, v))


def test_a_module_of_sequences():
    q, k, v, _, starts, *_ = sequences()
    layer = st.BlockSparseAttention(
        random_pattern(), heads=HEADS, head_dim=WIDTH, causal=True, varlen=True, score=TEXT
    )
    right = st.varlen_attention(q, k, v, layer.pattern, starts, causal=True, score=TEXT)
    assert torch.equal(layer(q, k, v, cu_seqlens=starts), right)


REFUSED = [
    ({"score": "score;"}, "at column 6, ';' is not expected: use numbers, score"),
    ({"score": "sin(score)"}, "sin"),
    ({"score": "2", "score_derivative": "1"}, "score_derivative '1' is not the derivative of"),
    ({"score_derivative": "1"}, "was given without a score"),
    ({"score": "2*score", "softcap": 3.0}, "write the cap into the expression"),
]


@pytest.mark.parametrize("words, sentence", REFUSED)
def test_what_is_refused(words, sentence):
    q, k, v, _ = tensors()
    pattern = random_pattern()
    with pytest.raises(spion.UserError, match=sentence):
        st.attention(q, k, v, pattern, **words)
    with pytest.raises(spion.UserError, match=sentence):
        st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH, **words)
    starts = torch.tensor([0, LENGTH], dtype=torch.int32)
    with pytest.raises(spion.UserError, match=sentence):
        st.varlen_attention(*(x[0].transpose(0, 1) for x in (q, k, v)), pattern, starts, **words)
    if "softcap" not in words:
        with pytest.raises(spion.UserError, match=sentence):
            qkv = torch.randn(1, LENGTH, 3, HEADS, WIDTH)
            st.packed_attention(qkv, pattern, **words)
        given, rest = list(packed("")), [words.get("score", ""), words.get("score_derivative", "")]
        with pytest.raises(spion.UserError, match=sentence):
            torch.ops.spion.packed_attention(*given[:-1], *rest)


def test_maps_of_changed_scores_are_not_looked_at():
    layer = st.BlockSparseAttention(
        spion.Pattern.full(LENGTH, block=BLOCK), heads=HEADS, head_dim=WIDTH, score="0.5*score"
    )
    schedule, (q, k, v, _) = st.SpionSchedule(layer), tensors(grad=False)
    with pytest.raises(spion.UserError, match="an expression of scores.*leave score null"):
        schedule.observe(lambda: layer(q, k, v))
