"""What an attention may have beside its pattern, with NumPy and PyTorch on the host: keys of another
length, values of another width, changes of scores, sinks, a bias by relative
position, dropout and patterns of heads."""

import pickle

import numpy as np
import pytest
import reference
import torch
from cases import BATCH, BLOCK, CASES, HEADS, LENGTH, WIDTH, Case
from oracle import close

import spion
import spion.torch as st

LEARNT = ("sinks", "relative_bias")


@pytest.mark.parametrize("name", CASES)
def test_plans_equal_float64(name):
    expect_float64(Case(**CASES[name]))


def test_expressions_of_scores_equal_float64():
    case = Case(keys=130, shared=2, causal=True, alibi=True, sinks=True, expressed=True)
    expect_float64(case)
    case.fields["score_derivative"] = "1-tanh(score/2)*tanh(score/2)"
    expect_float64(case)
    with pytest.raises(spion.UserError, match="score_derivative '1' is not the derivative of"):
        spion.plan(**{**case.fields, "score_derivative": "1"})
    with pytest.raises(spion.UserError, match="at column 6, ';' is not expected: use numbers, score"):
        spion.plan(**{**case.fields, "score": "score;", "score_derivative": ""})


def expect_float64(case):
    plan = spion.plan(**case.fields)
    o, lse = plan.forward(case.q, case.k, case.v, case.pattern, **case.given())
    made = plan.backward(
        case.d_o, case.q, case.k, case.v, o, lse, case.pattern, **case.given()
    )
    wanted = case.wanted()
    assert len(made) == len(wanted) - 2
    for given, right in zip((o, lse, *made), wanted):
        close(given, right)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_pytorch_equal_float64(name):
    case = Case(**CASES[name])
    q, k, v = (torch.from_numpy(x).requires_grad_() for x in (case.q, case.k, case.v))
    given = case.given(torch.from_numpy)
    leaves = [q, k, v]
    leaves += [given[x].requires_grad_() for x in LEARNT if given[x] is not None]
    o, lse = st.attention_with_lse(q, k, v, case.pattern, **case.words, **given)
    gradients = torch.autograd.grad(o, leaves, torch.from_numpy(case.d_o))
    for made, right in zip((o, lse, *gradients), case.wanted()):
        close(made.detach().numpy(), right)


def general(case):
    """The arguments of the operator."""
    convert = torch.from_numpy
    plan = st.plan(**case.fields)
    tensors = [convert(x).requires_grad_() for x in (case.q, case.k, case.v)]
    given = case.given(convert)
    for name in LEARNT:
        if given[name] is not None:
            given[name].requires_grad_()
    words = case.words
    return (
        *tensors, st.tables(case.pattern, plan), None, BLOCK, 0.0, words["softmax"],
        words["causal"], None, words["softcap"], words["dropout"], case.pattern.patterns,
        *given.values(),
    )


@pytest.mark.parametrize("name", ["all", "more keys", "wider values", "bias of patterns"])
def test_opcheck(name):
    torch.library.opcheck(torch.ops.spion.general_attention.default, general(Case(**CASES[name])))


@pytest.mark.parametrize("name", CASES)
def test_known_plans_take_the_direct_way(name, monkeypatch):
    """A second call of a shape is one call of the library, with the bits of the first."""
    from spion.torch import _general

    given = general(Case(**CASES[name]))
    given = [x.detach() if isinstance(x, torch.Tensor) else x for x in given]
    attention = torch.ops.spion.general_attention
    backward = torch.ops.spion.general_attention_backward
    o, lse = attention(*given)
    first = o, lse, *backward(torch.ones_like(o), *given[:3], o, lse, *given[3:])

    def refuse(*_):
        raise AssertionError("the plan is looked for again")

    monkeypatch.setattr(_general, "find", refuse)
    second = *attention(*given), *backward(torch.ones_like(o), *given[:3], o, lse, *given[3:])
    assert all(torch.equal(x, y) for x, y in zip(first, second))


def test_ranks_that_are_refused():
    q, k, *rest = general(Case(**CASES["sinks"]))
    for name, given in (("q", (q[0], k)), ("k", (q, k[0]))):
        with pytest.raises(spion.UserError, match=f"{name} has shape .*give tensors"):
            torch.ops.spion.general_attention(*given, *rest)


def test_twice_is_refused():
    q, *rest = general(Case(**CASES["sinks"]))
    o, _ = torch.ops.spion.general_attention(q, *rest)
    (d_q,) = torch.autograd.grad(o.square().sum(), q, create_graph=True)
    with pytest.raises(spion.UserError, match="cannot be differentiated twice"):
        d_q.sum().backward()


class Layer(torch.nn.Module):
    def __init__(self, case, **changes):
        super().__init__()
        fields = {k: v for k, v in case.fields.items() if k not in PATTERNS_OWN}
        fields["alibi_slopes"] = torch.from_numpy(case.slopes) if fields.pop("alibi") else None
        self.attention = st.BlockSparseAttention(case.pattern, **{**fields, **changes})
        self.project = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, q, k, v):
        return self.attention(self.project(q), k, v)


PATTERNS_OWN = ("length", "block", "key_length", "patterns")


def test_a_module_is_one_graph_and_learns_its_sinks():
    case = Case(**CASES["all"])
    layer = Layer(case)
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(layer, backend=count, fullgraph=True)
    for step in range(3):
        torch.manual_seed(5)
        eager = layer(q, k, v)
        torch.manual_seed(5)
        assert torch.equal(compiled(q, k, v), eager)
        eager.square().mean().backward()
        layer.attention.set_pattern(spion.Pattern.from_bits(~case.bits, LENGTH, block=BLOCK))
    assert len(graphs) == 1
    assert layer.attention.sinks.grad.abs().min() > 0


def test_a_module_learns_its_bias():
    case = Case(reach=20, sinks=True)
    layer = Layer(case)
    bias = layer.attention.relative_bias
    assert bias.shape == (HEADS, 41) and "attention.relative_bias" in layer.state_dict()
    with torch.no_grad():
        bias.copy_(torch.from_numpy(case.bias))
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    given = {"sinks": layer.attention.sinks, "relative_bias": bias}
    o = layer(q, k, v)
    assert torch.equal(o, st.attention(layer.project(q), k, v, case.pattern, **given))
    step = torch.optim.SGD([bias], lr=1e-3)
    before = o.square().mean()
    before.backward()
    assert bias.grad.abs().max() > 0
    step.step()
    assert layer(q, k, v).square().mean() < before


def test_a_bias_that_does_not_fit_is_refused():
    case = Case(reach=20)
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    for shape in ((HEADS,), (HEADS, 40), (HEADS, 1)):
        with pytest.raises(spion.UserError, match=r"relative_bias has shape .*\[H, 2R \+ 1\]"):
            st.attention(q, k, v, case.pattern, relative_bias=torch.zeros(shape))
    with pytest.raises(spion.UserError, match=r"relative_bias is \[3, 41\].*= \[4, 41\]"):
        st.attention(q, k, v, case.pattern, relative_bias=torch.zeros(3, 41))
    with pytest.raises(spion.UserError, match="relative_bias is of float64"):
        st.attention(q, k, v, case.pattern, relative_bias=torch.zeros(HEADS, 41).double())
    plan, arrays = spion.plan(**case.fields), (case.q, case.k, case.v, case.pattern)
    with pytest.raises(spion.UserError, match="relative_bias is null and the plan was made with"):
        plan.forward(*arrays)
    with pytest.raises(spion.UserError, match=r"must be \[H, 2R \+ 1\] = \[4, 41\]"):
        plan.forward(*arrays, relative_bias=case.bias[:, :39].copy())
    bare = spion.plan(**{**case.fields, "relative_bias": 0})
    with pytest.raises(spion.UserError, match="is given and the plan was made without"):
        bare.forward(*arrays, relative_bias=case.bias)
    with pytest.raises(spion.UserError, match="relative_bias 9000 is not allowed"):
        spion.plan(**{**case.fields, "relative_bias": 9000})
    attention = spion.Attention(**case.fields, dtype="fp32")
    with pytest.raises(spion.UserError, match="leave relative_bias 0"):
        spion.Discoverer(attention, spion.context("cpu"))


def test_a_module_with_wider_values():
    case = Case(values=40)
    layer = Layer(case)
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    assert torch.equal(layer(q, k, v), st.attention(layer.project(q), k, v, case.pattern))
    assert layer(q, k, v).shape == (BATCH, HEADS, LENGTH, 40)
    with pytest.raises(spion.UserError, match="v has rank 4 and shape"):
        torch.ops.spion.attention(q, k, v, layer.attention.tables, None, BLOCK, 0.0, "masked")


def test_dropout_of_a_module_is_pytorchs_to_decide():
    case = Case(dropout=0.25)
    layer = Layer(case)
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    torch.manual_seed(1)
    first, second = layer(q, k, v), layer(q, k, v)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(layer(q, k, v), first) and torch.equal(layer(q, k, v), second)
    layer.eval()
    without = Layer(case, dropout=0.0)
    without.load_state_dict(layer.state_dict())
    assert torch.equal(layer(q, k, v), without(q, k, v))


def test_about_as_many_are_dropped_as_was_asked():
    ones = torch.ones(1, 1, 256, 16)
    pattern = spion.Pattern.full(256, block=64)
    torch.manual_seed(3)
    o = st.attention(ones, ones, ones, pattern, dropout=0.25)
    # Rows are means of kept ones: 1 as a rule, and of 256 drawn with 0.25 off by 0.036 in the mean.
    assert abs(o.mean().item() - 1) < 0.02 and 0.015 < o[..., 0].std().item() < 0.08


def test_patterns_of_heads_come_back():
    case = Case(**CASES["patterns of shared heads"])
    pattern = case.pattern
    assert (pattern.patterns, pattern.rows, pattern.columns) == (2, 3, 3)
    assert np.array_equal(pattern.bits(), case.bits)
    assert pickle.loads(pickle.dumps(pattern)) == pattern
    across = Case(keys=150).pattern
    assert pickle.loads(pickle.dumps(across)) == across and across.key_length == 150
    layer, other = Layer(case), Layer(case)
    layer.attention.set_pattern(spion.Pattern.from_bits(~case.bits, LENGTH, block=BLOCK))
    other.load_state_dict(layer.state_dict())
    assert other.attention.pattern == layer.attention.pattern != pattern
    with pytest.raises(spion.UserError, match="has 1 patterns of heads, the module for 90 and 2"):
        layer.attention.set_pattern(spion.Pattern.full(LENGTH, block=BLOCK))


@pytest.mark.parametrize("patterns, shared", [(1, 4), (4, 4), (2, 2), (4, 2)])
def test_discovery_from_q_and_k(patterns, shared):
    """Of changed scores, with a map for all heads or each: as from the map itself."""
    case = Case(patterns=patterns, shared=shared, softcap=2.0, alibi=True, sinks=True, dropout=0.2)
    full = spion.Pattern.from_heads([spion.Pattern.full(LENGTH, block=BLOCK)] * patterns)
    attention = spion.Attention(**case.fields, dtype="fp32")
    plan = spion.plan(**case.fields)
    nothing = {**case.given(), "dropout_state": np.zeros(2, np.int64)}
    _, lse = plan.forward(case.q, case.k, case.v, full, **nothing)
    discoverer = spion.Discoverer(attention, spion.context("cpu"), filter=5, quantile=0.5)
    found, pooled = discoverer(case.q, case.k, lse, alibi_slopes=case.slopes)
    k = np.repeat(np.float64(case.k), HEADS // shared, 1)
    scores = 2 * np.tanh(np.float64(case.q) @ k.swapaxes(-1, -2) / WIDTH**0.5 / 2)
    place = np.arange(LENGTH)
    scores -= case.slopes[:, None, None] * np.abs(place[:, None] - place)
    maps = np.exp(scores - lse[..., None]).mean(0).reshape(patterns, -1, LENGTH, LENGTH).mean(1)
    for index, one in enumerate(maps):
        wanted = spion.discover(one, block=BLOCK, filter=5, quantile=0.5)
        assert found.head(index) == wanted
        conv = sum(
            np.pad(one, 2)[2 + f : 2 + f + LENGTH, 2 + f : 2 + f + LENGTH] for f in range(-2, 3)
        )
        block = conv[:BLOCK, BLOCK : 2 * BLOCK].mean()
        assert abs((pooled if patterns == 1 else pooled[index])[0, 1] - block) < 1e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("patterns", [1, 4])
@pytest.mark.parametrize("lengths", [None, (LENGTH, 50)])
def test_discovery_equals_a_dense_reference(causal, patterns, lengths):
    """From Q and K to the pattern, in NumPy and float64 on whole maps: probabilities, what the mask drops
    being absent and what is padded 0, pooled, their quantile, flooded."""
    block, edge, quantile = 16, 7, 0.6
    numbers = np.random.default_rng(11 + patterns)
    q, k, v = numbers.standard_normal((3, BATCH, HEADS, LENGTH, WIDTH)).astype(np.float32)
    k[..., 20:24, :] += 1.5 * np.sign(q.mean((0, 1, 2)))  # a stripe
    fields = {"heads": HEADS, "head_dim": WIDTH, "length": LENGTH, "block": block, "causal": causal}
    fields |= {"patterns": patterns, "softmax": "masked", "key_padding": lengths is not None}
    valid = None if lengths is None else np.array(lengths, np.int32)
    one = spion.Pattern.full(LENGTH, block=block)
    full = one if patterns == 1 else spion.Pattern.from_heads([one] * patterns)
    _, lse = spion.plan(**fields).forward(q, k, v, full, lengths=valid)
    attention = spion.Attention(**fields, dtype="fp32")
    discoverer = spion.Discoverer(attention, spion.context("cpu"), filter=edge, quantile=quantile)
    found, _ = discoverer(q, k, lse, lengths=valid)

    scores = np.float64(q) @ np.float64(k).swapaxes(-1, -2) / WIDTH**0.5
    place = np.arange(LENGTH)
    dropped = causal & (place[:, None] < place)
    padded = place >= np.array(lengths or [LENGTH] * BATCH)[:, None]
    scores = np.where(dropped | padded[:, None, None, :], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    maps = (weights / weights.sum(-1, keepdims=True)).mean(0)
    for index, scored in enumerate(maps if patterns > 1 else maps.mean(0)[None]):
        scored[np.broadcast_to(dropped, scored.shape)] = np.nan
        pooled = reference.pooled_map(scored, block, edge)
        bits = reference.flood_fill(pooled, np.nanquantile(pooled, quantile))
        assert 0 < bits.sum() < bits.size / 2 and bits.sum() > len(bits)
        given = found.head(index) if patterns > 1 else found
        assert (given.bits() == bits).all()


def test_a_schedule_finds_a_pattern_a_head():
    torch.manual_seed(0)
    full = spion.Pattern.from_heads([spion.Pattern.full(128, block=16)] * 2)
    layer = st.BlockSparseAttention(full, heads=2, head_dim=16, dropout=0.1, sinks=True)
    schedule = st.SpionSchedule(layer, filter=3, quantile=0.8)
    q, k, v = torch.randn(3, 2, 2, 128, 16)
    q[:, 0], k[:, 0] = 4 * torch.eye(128)[:, :16], 4 * torch.eye(128)[:, :16]
    for _ in range(3):
        schedule.observe(lambda: layer(q, k, v))
    (found,) = schedule.turn_sparse()
    assert found.patterns == 2 and found.head(0) != found.head(1) and found.density < 0.6
    assert found.imbalance >= 1


def test_masks_of_keys_of_another_length():
    case = Case(keys=150)
    spans = spion.spans(BATCH, LENGTH, causal=True, left=40, key_length=150)
    assert spans.shape == (2 * BATCH * (LENGTH + 150),)
    causal = spion.spans(BATCH, LENGTH, causal=True, key_length=150)
    fields = {**case.fields, "causal": False, "spans": True}
    plan = spion.plan(**fields)
    o, _ = plan.forward(case.q, case.k, case.v, case.pattern, spans=causal)
    same, _ = spion.plan(**{**case.fields, "causal": True}).forward(
        case.q, case.k, case.v, case.pattern
    )
    close(o, same)
    windowed = st.attention(
        *(torch.from_numpy(x) for x in (case.q, case.k, case.v)),
        case.pattern,
        spans=torch.from_numpy(spans),
    )
    assert not np.allclose(windowed.numpy(), o)
    with pytest.raises(spion.UserError, match=r"numbers, and 2 \* B \* \(L \+ Lk\) is 960"):
        plan.forward(case.q, case.k, case.v, case.pattern, spans=spans[:-2])


def test_what_is_missing_or_too_much_is_refused():
    case = Case(sinks=True, dropout=0.25)
    plan = spion.plan(**case.fields)
    arrays = case.q, case.k, case.v, case.pattern
    given = case.given()
    for name, sentence in (("sinks", "sinks is null"), ("dropout_state", "dropout is null")):
        with pytest.raises(spion.UserError, match=sentence):
            plan.forward(*arrays, **{**given, name: None})
    with pytest.raises(spion.UserError, match="sinks has 3 numbers, and q has 4 heads"):
        plan.forward(*arrays, **{**given, "sinks": case.sinks[:3]})
    with pytest.raises(spion.UserError, match=r"dropout_state is not \[2\] int64"):
        plan.forward(*arrays, **{**given, "dropout_state": np.zeros(3, np.int64)})
    with pytest.raises(spion.UserError, match=r"v has rank 4 and .* \[B, H, L, Dv\] = \[2, 4, 90, 24\]"):
        spion.plan(**case.fields, value_dim=24).forward(*arrays, **given)
    with pytest.raises(spion.UserError, match="dropout 1 is not supported"):
        spion.plan(**{**case.fields, "dropout": 1.0})
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    with pytest.raises(spion.UserError, match="a dropout_state is given and dropout is 0"):
        st.attention(q, k, v, case.pattern, dropout_state=torch.zeros(2, dtype=torch.int64))
