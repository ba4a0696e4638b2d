"""Sequences that lie end to end, with NumPy and PyTorch on the host: each as attention of its own in
float64."""

import numpy as np
import pytest
import reference
import torch
from oracle import attention, attention_gradients, close

import spion
import spion.torch as st

BLOCK, LONGEST, HEADS, WIDTH = 32, 90, 4, 16
STARTS = np.array([0, 90, 90, 107, 150], np.int32)
BATCH, ROWS = len(STARTS) - 1, int(STARTS[-1])
RULES = {
    "whole": {},
    "causal window": {"causal": True, "left": 20},
    "documents": {"documents": np.repeat([[0, 1, 4], [2, 3, 9], [1, 1, 1], [1, 2, 3]], 30, axis=1)},
}


class Case:
    """q, k, v and d_o as [H, T, D], and spion's plan and pattern."""

    def __init__(self, shared=HEADS, values=WIDTH, **fields):
        numbers = np.random.default_rng(shared + values)

        def normal(heads, width):
            return numbers.standard_normal((heads, ROWS, width)).astype(np.float32)

        self.q, self.k, self.v = normal(HEADS, WIDTH), normal(shared, WIDTH), normal(shared, values)
        self.d_o = normal(HEADS, values)
        self.bits = numbers.random((3, 3)) < 0.7
        self.pattern = spion.Pattern.from_bits(self.bits, LONGEST, block=BLOCK)
        self.plan = spion.plan(
            heads=HEADS, head_dim=WIDTH, length=LONGEST, block=BLOCK, key_value_heads=shared,
            value_dim=values, varlen=True, **fields,
        )

    def run(self, spans, convert=lambda x: x, **given):
        beside = {"spans": spans, "cu_seqlens": STARTS, **given}
        q, k, v, d_o = (convert(x) for x in (self.q, self.k, self.v, self.d_o))
        o, lse = self.plan.forward(q, k, v, self.pattern, **beside)
        return o, lse, *self.plan.backward(d_o, q, k, v, o, lse, self.pattern, **beside)


def cut(rules, b, length):
    """The rules of sequence b alone."""
    return {n: x[b : b + 1, :length] if n == "documents" else x for n, x in rules.items()}


@pytest.mark.parametrize("softmax", ["masked", "pruned_zero"])
@pytest.mark.parametrize("name", RULES)
def test_each_sequence_is_attention_of_its_own(name, softmax):
    case, rules = Case(shared=2, softmax=softmax), RULES[name]
    spans = spion.spans(BATCH, LONGEST, cu_seqlens=STARTS, **rules)
    o, lse, *gradients = case.run(spans)
    for b, (begin, end) in enumerate(zip(STARTS, STARTS[1:])):
        q, k, v, d_o = (x[None, :, begin:end] for x in (case.q, case.k, case.v, case.d_o))
        length = int(end - begin)
        if length == 0:
            continue
        rest = (case.bits, BLOCK, softmax, None, cut(rules, b, length))
        wanted_o, wanted_lse = attention(q, k, v, *rest)
        close(o[None, :, begin:end], wanted_o)
        close(lse[b : b + 1, :, :length], wanted_lse)
        for made, right in zip(gradients, attention_gradients(d_o, q, k, v, *rest), strict=True):
            close(made[None, :, begin:end], right)


def test_rows_of_all_heads_and_wider_values():
    """[T, H, D] as most libraries have it, by a view; what lies there is written where it lies."""
    case = Case(values=24)
    spans = spion.spans(BATCH, LONGEST, cu_seqlens=STARTS)
    wanted = case.run(spans)

    def rows_first(x):
        return np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)

    made = case.run(spans, rows_first)
    for name, given, right in zip("o lse d_q d_k d_v".split(), made, wanted, strict=True):
        if name != "lse":
            assert np.array_equal(given, right)
    out = np.full((ROWS, HEADS, 24), np.nan, np.float32).transpose(1, 0, 2)
    case.plan.forward(
        case.q, case.k, case.v, case.pattern, spans=spans, cu_seqlens=STARTS, out=out
    )
    assert np.array_equal(out, wanted[0])


def test_dropout_and_sinks_number_positions_from_each_sequences_first():
    case = Case(dropout=0.25, sinks=True)
    sinks = np.linspace(-1, 1, HEADS, dtype=np.float32)
    given = {"dropout_state": spion.dropout_state(5, 9), "sinks": sinks}
    o, _, *_, d_sinks = case.run(spion.spans(BATCH, LONGEST, cu_seqlens=STARTS), **given)
    factors = reference.kept_factors(0.25, 5, 9, BATCH, HEADS, LONGEST, LONGEST)
    wanted_sinks = torch.from_numpy(sinks).double().requires_grad_()
    total = 0
    for b, (begin, end) in enumerate(zip(STARTS, STARTS[1:])):
        length = int(end - begin)
        q, k, v, d_o = (
            torch.from_numpy(x[None, :, begin:end]).double()
            for x in (case.q, case.k, case.v, case.d_o)
        )
        wanted, _ = reference.attention(
            q, k, v, case.bits[None], BLOCK, sinks=wanted_sinks,
            factors=factors[b : b + 1, :, :length, :length],
        )
        close(o[None, :, begin:end], wanted.detach().numpy())
        total = total + (wanted * d_o).sum()
    close(d_sinks, torch.autograd.grad(total, wanted_sinks)[0].numpy(), 1e-4)


def test_a_bias_numbers_positions_from_each_sequences_first():
    case = Case(shared=2, relative_bias=12)
    numbers = np.random.default_rng(3).standard_normal((HEADS, 25)).astype(np.float32)
    mask = spion.spans(BATCH, LONGEST, cu_seqlens=STARTS)
    o, _, *gradients, d_bias = case.run(mask, relative_bias=numbers)
    bias = torch.from_numpy(numbers).double().requires_grad_()
    total = 0
    for begin, end in zip(STARTS, STARTS[1:]):
        q, k, v, d_o = (
            torch.from_numpy(x[None, :, begin:end]).double()
            for x in (case.q, case.k, case.v, case.d_o)
        )
        wanted, _ = reference.attention(q, k, v, case.bits[None], BLOCK, bias=bias)
        close(o[None, :, begin:end], wanted.detach().numpy())
        total = total + (wanted * d_o).sum()
    close(d_bias, torch.autograd.grad(total, bias)[0].numpy(), 1e-4)
    q, k, v, d_o = tensors(case)
    learnt = torch.from_numpy(numbers).requires_grad_()
    starts = torch.from_numpy(STARTS)
    made = st.varlen_attention(q, k, v, case.pattern, starts, relative_bias=learnt)
    assert np.array_equal(made.detach().transpose(0, 1).numpy(), o)
    made = torch.autograd.grad(made, [q, k, v, learnt], d_o)
    for given, right in zip(made[:3], gradients, strict=True):
        assert np.array_equal(given.transpose(0, 1).numpy(), right)
    assert np.array_equal(made[3].numpy(), d_bias)


def test_what_does_not_fit_is_refused():
    case = Case()
    spans = spion.spans(BATCH, LONGEST, cu_seqlens=STARTS)

    def refuses(words, **changes):
        given = {"spans": spans, "cu_seqlens": STARTS, **changes}
        with pytest.raises(spion.UserError, match=words):
            case.plan.forward(case.q, case.k, case.v, case.pattern, **given)

    refuses("the plan was made with varlen and the call has no cu_seqlens", cu_seqlens=None)
    refuses("cu_seqlens is of int64, and it must be of int32", cu_seqlens=STARTS.astype(np.int64))
    refuses("cu_seqlens ends with 149 and the tensors have 150 rows",
            cu_seqlens=np.minimum(STARTS, 149))
    refuses(r"cu_seqlens\[2\] is 80, below the 90",
            cu_seqlens=np.array([0, 90, 80, 107, 150], np.int32))
    refuses("query_spans are null", spans=None)
    refuses(r"spans are not \[2, B, L, 2\]", spans=spans[:, :2].copy())
    refuses("by cu_seqlens it has 0 positions", spans=spion.spans(BATCH, LONGEST))
    with pytest.raises(spion.UserError, match=r"q has rank 4: give an array \[H, T, D\]"):
        case.plan.forward(
            case.q[None], case.k, case.v, case.pattern, spans=spans, cu_seqlens=STARTS
        )
    with pytest.raises(spion.UserError, match=r"cu_seqlens has not batch \+ 1 numbers"):
        spion.spans(BATCH, LONGEST, cu_seqlens=STARTS[:-1])
    bare = spion.plan(heads=HEADS, head_dim=WIDTH, length=LONGEST, block=BLOCK)
    padded = np.zeros((BATCH, HEADS, LONGEST, WIDTH), np.float32)
    with pytest.raises(spion.UserError, match="cu_seqlens is given and the plan was made without"):
        bare.forward(padded, padded, padded, case.pattern, cu_seqlens=STARTS)
    with pytest.raises(spion.UserError, match="varlen and for causal"):
        Case(causal=True)


def tensors(case, rows_first=True):
    """q, k, v and d_o as PyTorch's, [T, H, D]."""
    made = []
    for x in (case.q, case.k, case.v, case.d_o):
        x = torch.from_numpy(x).transpose(0, 1)
        made.append(x.contiguous() if rows_first else x)
    for x in made[:3]:
        x.requires_grad_()
    return made


@pytest.mark.parametrize("rows_first", [True, False])
@pytest.mark.parametrize("name", ["whole", "causal window"])
def test_pytorch_equals_numpy(name, rows_first):
    rules = RULES[name]
    case = Case(shared=2, values=24, dropout=0.25, sinks=True)
    sinks = np.linspace(-1, 1, HEADS, dtype=np.float32)
    state = spion.dropout_state(5, 9)
    mask = spion.spans(BATCH, LONGEST, cu_seqlens=STARTS, **rules)
    wanted = case.run(mask, dropout_state=state, sinks=sinks)
    q, k, v, d_o = tensors(case, rows_first)
    learnt = torch.from_numpy(sinks).requires_grad_()
    spans = None
    if rules:
        spans = st.spans(BATCH, LONGEST, cu_seqlens=STARTS, **rules)
    o = st.varlen_attention(
        q, k, v, case.pattern, torch.from_numpy(STARTS), spans=spans, dropout=0.25,
        dropout_state=torch.from_numpy(state), sinks=learnt,
    )
    assert o.shape == (ROWS, HEADS, 24)
    made = torch.autograd.grad(o, [q, k, v, learnt], d_o)
    for given, right in zip((o, *made[:3]), (wanted[0], *wanted[2:5]), strict=True):
        assert np.array_equal(given.detach().transpose(0, 1).numpy(), right)
    assert np.array_equal(made[3].numpy(), wanted[5])


def test_causal_is_said_in_a_word():
    case = Case()
    q, k, v, _ = tensors(case)
    starts = torch.from_numpy(STARTS)
    spans = st.spans(BATCH, LONGEST, cu_seqlens=STARTS, causal=True)
    o = st.varlen_attention(q, k, v, case.pattern, starts, causal=True)
    assert torch.equal(o, st.varlen_attention(q, k, v, case.pattern, starts, spans=spans))
    assert torch.allclose(o[90], v[90]), "a first position keeps itself alone"
    torch.manual_seed(1)
    first = st.varlen_attention(q, k, v, case.pattern, starts, dropout=0.25)
    assert not torch.equal(first, st.varlen_attention(q, k, v, case.pattern, starts, dropout=0.25))
    torch.manual_seed(1)
    assert torch.equal(first, st.varlen_attention(q, k, v, case.pattern, starts, dropout=0.25))


def operands(case, **changes):
    """The arguments of the operator."""
    plan = st.plan(
        heads=HEADS, head_dim=WIDTH, length=LONGEST, block=BLOCK,
        key_value_heads=case.k.shape[0], value_dim=case.v.shape[2], varlen=True,
        dropout=0.25, sinks=True,
    )
    q, k, v, _ = tensors(case)
    spans = st.spans(BATCH, LONGEST, cu_seqlens=STARTS, causal=True)
    state = torch.from_numpy(spion.dropout_state(5, 9))
    sinks = torch.linspace(-1, 1, HEADS).requires_grad_()
    return (
        q, k, v, st.tables(case.pattern, plan), torch.from_numpy(STARTS), spans, LONGEST, BLOCK,
        0.0, "masked", 0.0, 0.25, 1, state, None, sinks,
    )


def test_opcheck():
    case = Case(shared=2, values=24)
    torch.library.opcheck(torch.ops.spion.varlen_attention.default, operands(case))
    q, *rest = operands(case)
    o, lse = torch.ops.spion.varlen_attention(q, *rest)
    assert torch.isneginf(lse[2, :, 17:]).all() and torch.isfinite(lse[2, :, :17]).all()
    (d_q,) = torch.autograd.grad(o.square().sum(), q, create_graph=True)
    with pytest.raises(spion.UserError, match="cannot be differentiated twice"):
        d_q.sum().backward()


def test_it_is_one_graph():
    case = Case(shared=2, values=24)
    arguments = operands(case)

    def step(q, *rest):
        return torch.ops.spion.varlen_attention(2 * q, *rest)[0].square()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(*arguments), step(*arguments))
    q = arguments[0]
    (made,) = torch.autograd.grad(compiled(*arguments).sum(), q)
    (wanted,) = torch.autograd.grad(step(*arguments).sum(), q)
    assert torch.equal(made, wanted)


def test_what_pytorch_gives_wrongly_is_refused():
    case = Case()
    q, k, v, _ = tensors(case)
    starts = torch.from_numpy(STARTS)

    def refuses(words, *given, **more):
        with pytest.raises(spion.UserError, match=words):
            st.varlen_attention(*given, **more)

    refuses(r"q has shape .*: give tensors \[T, H, D\]", q[None], k, v, case.pattern, starts)
    refuses("causal and spans are given", q, k, v, case.pattern, starts, causal=True,
            spans=st.spans(BATCH, LONGEST, cu_seqlens=STARTS))
    refuses("dropout_state is given and dropout is 0", q, k, v, case.pattern, starts,
            dropout_state=torch.zeros(2, dtype=torch.int64))
    refuses("cu_seqlens ends with 150 and the tensors have 149 rows", q[:-1], k[:-1], v[:-1],
            case.pattern, starts)
    refuses("sequence 0 has 90 positions", q, k, v, spion.Pattern.full(64, block=BLOCK), starts)


def others(rows=110):
    """Where sequences of keys begin, for BATCH of them: shorter, longer, none, all that there may be."""
    return np.array([0, 20, 60, 60, rows], np.int32)


KEYS = 50  # at most, of a sequence


class Across(Case):
    """Keys that are sequences of their own, and, where asked, patterns of each sequence's own."""

    def __init__(self, own=False, room=BATCH, **fields):
        super().__init__(shared=2)
        numbers = np.random.default_rng(7)
        starts = others()
        self.k, self.v = (
            numbers.standard_normal((2, starts[-1], WIDTH)).astype(np.float32) for _ in range(2)
        )
        self.each = [numbers.random((3, 2)) < 0.7 for _ in range(BATCH if own else 1)]
        made = [spion.Pattern.from_bits(x, LONGEST, block=BLOCK, key_length=KEYS) for x in self.each]
        self.patterns = made
        self.pattern = spion.Pattern.from_heads(made) if own else made[0]
        self.plan = spion.plan(
            heads=HEADS, head_dim=WIDTH, length=LONGEST, block=BLOCK, key_value_heads=2,
            key_length=KEYS, varlen=True, key_starts=True, sequence_patterns=room if own else 0,
            **fields,
        )


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_keys_are_sequences_of_their_own(causal, own):
    case, starts = Across(own, room=6), others()
    spans = spion.spans(BATCH, LONGEST, key_length=KEYS, causal=causal, cu_seqlens=STARTS,
                        key_cu_seqlens=starts)
    o, lse, *gradients = case.run(spans, key_cu_seqlens=starts)
    q, k, v, d_o = (torch.from_numpy(x).double().requires_grad_() for x in (case.q, case.k, case.v, case.d_o))
    total = 0
    for b in range(BATCH):
        queries, keys = slice(*STARTS[b : b + 2]), slice(*starts[b : b + 2])
        length, count = queries.stop - queries.start, keys.stop - keys.start
        if length == 0 or count == 0:
            assert np.all(o[:, queries] == 0)
            continue
        bits = case.each[b % len(case.each)]
        kept = np.repeat(np.repeat(bits, BLOCK, 0), BLOCK, 1)[:length, :count]
        if causal:
            kept = kept & (np.arange(count) <= np.arange(length)[:, None] + count - length)
        shared = [x[:, keys].repeat_interleave(2, 0) for x in (k, v)]
        scores = q[:, queries] @ shared[0].transpose(1, 2) / WIDTH**0.5
        scores = scores.masked_fill(~torch.from_numpy(kept), -torch.inf)
        wanted = torch.nan_to_num(scores.softmax(-1)) @ shared[1]
        close(o[:, queries], wanted.detach().numpy())
        close(lse[b, :, :length], scores.logsumexp(-1).detach().numpy())
        total = total + (wanted * d_o[:, queries]).sum()
    for made, right in zip(gradients, torch.autograd.grad(total, [q, k, v]), strict=True):
        close(made, torch.nan_to_num(right).numpy())


@pytest.mark.parametrize("own", [False, True])
def test_pytorch_takes_other_keys_and_patterns_of_each(own):
    case, starts = Across(own), others()
    spans = spion.spans(BATCH, LONGEST, key_length=KEYS, causal=True, cu_seqlens=STARTS,
                        key_cu_seqlens=starts)
    wanted = case.run(spans, key_cu_seqlens=starts)
    q, k, v, d_o = tensors(case)
    pattern = case.patterns if own else case.pattern
    o = st.varlen_attention(
        q, k, v, pattern, torch.from_numpy(STARTS), key_cu_seqlens=torch.from_numpy(starts), causal=True
    )
    made = torch.autograd.grad(o, [q, k, v], d_o)
    for given, right in zip((o, *made), (wanted[0], *wanted[2:]), strict=True):
        assert np.array_equal(given.detach().transpose(0, 1).numpy(), right)
    if own:
        with pytest.raises(spion.UserError, match="3 patterns were given for 4 sequences"):
            st.varlen_attention(q, k, v, pattern[:3], torch.from_numpy(STARTS))


def test_patterns_are_of_as_many_sequences_as_there_are():
    case, starts = Across(own=True, room=6), others()
    spans = spion.spans(BATCH, LONGEST, key_length=KEYS, cu_seqlens=STARTS, key_cu_seqlens=starts)
    case.pattern = spion.Pattern.from_heads(case.patterns[:3])
    with pytest.raises(spion.UserError, match="4 sequences were given, and the tables have patterns of 3"):
        case.run(spans, key_cu_seqlens=starts)
    with pytest.raises(spion.UserError, match="key_cu_seqlens has 4 numbers, and B . 1 is 5"):
        case.run(spans, key_cu_seqlens=starts[1:])
    with pytest.raises(spion.UserError, match="give varlen=true too"):
        spion.plan(heads=1, head_dim=16, length=32, key_starts=True)


@pytest.mark.parametrize("across", [False, True])
def test_a_module_takes_sequences(across):
    case = Across() if across else Case(shared=2)
    q, k, v, d_o = tensors(case)
    module = st.BlockSparseAttention(
        case.pattern, heads=HEADS, head_dim=WIDTH, key_value_heads=2, causal=True, varlen=True,
        key_starts=across, sinks=True,
    )
    given = {"cu_seqlens": torch.from_numpy(STARTS)}
    if across:
        given["key_cu_seqlens"] = torch.from_numpy(others())
    o = module(q, k, v, **given)
    wanted = st.varlen_attention(q, k, v, case.pattern, causal=True, sinks=torch.zeros(HEADS), **given)
    assert torch.equal(o, wanted)
    (o * d_o).sum().backward()
    assert module.sinks.grad.abs().max() > 0 and q.grad.abs().max() > 0
    dense = spion.Pattern.full(LONGEST, block=BLOCK, key_length=case.pattern.key_length)
    module.set_pattern(dense)
    assert not torch.equal(module(q, k, v, **given), o)
    with pytest.raises(spion.UserError, match="cu_seqlens is missing and the module has varlen=True"):
        module(q, k, v)
    plain = st.BlockSparseAttention(dense, heads=HEADS, head_dim=WIDTH)
    with pytest.raises(spion.UserError, match="cu_seqlens is given and the module has varlen=False"):
        plain(q, k, v, **given)
