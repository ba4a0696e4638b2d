"""libspion_torch.so, the operators without Python: in a process that has not loaded spion.torch."""

import os

import numpy as np
import pytest
import torch
from cases import CASES, Case
from oracle import attention, attention_gradients, close

import spion

BLOCK, LENGTH, HEADS, WIDTH = 32, 100, 2, 16


@pytest.fixture(scope="module", autouse=True)
def loaded():
    torch.ops.load_library(os.environ["SPION_TORCH_LIBRARY"])


@pytest.mark.parametrize("padded", [False, True])
def test_equals_float64(padded):
    torch.manual_seed(0)
    q, k, v, d_o = (torch.randn(2, HEADS, LENGTH, WIDTH) for _ in range(4))
    bits = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]], np.uint8)
    pattern = spion.Pattern.from_bits(bits, LENGTH, block=BLOCK)
    plan = spion.plan(heads=HEADS, head_dim=WIDTH, length=LENGTH, block=BLOCK, key_padding=padded)
    lengths = torch.tensor([LENGTH, 41], dtype=torch.int32) if padded else None
    rest = (torch.from_numpy(plan.tables(pattern)), lengths, BLOCK, 0.0, "masked")
    o, lse = torch.ops.spion.attention(q, k, v, *rest)
    gradients = torch.ops.spion.attention_backward(d_o, q, k, v, o, lse, *rest)
    case = (*(x.numpy() for x in (q, k, v)), bits, BLOCK, "masked", lengths)
    wanted, wanted_lse = attention(*case)
    close(o, wanted)
    close(lse, wanted_lse)
    for given, right in zip(gradients, attention_gradients(d_o.numpy(), *case)):
        close(given, right)


@pytest.mark.parametrize("spans", [False, True])
def test_masks_and_grouped_heads(spans):
    torch.manual_seed(0)
    q, d_o = (torch.randn(2, 4, LENGTH, WIDTH) for _ in range(2))
    k, v = (torch.randn(2, 2, LENGTH, WIDTH) for _ in range(2))
    rules = {"causal": True, "left": 30} if spans else {"causal": True}
    pattern = spion.Pattern.full(LENGTH, block=BLOCK)
    plan = spion.plan(
        heads=4,
        head_dim=WIDTH,
        length=LENGTH,
        block=BLOCK,
        key_value_heads=2,
        causal=not spans,
        spans=spans,
    )
    mask = torch.from_numpy(spion.spans(2, LENGTH, **rules)) if spans else None
    tables = torch.from_numpy(plan.tables(pattern))
    rest = (tables, None, BLOCK, 0.0, "masked", not spans, mask)
    o, lse = torch.ops.spion.attention(q, k, v, *rest)
    gradients = torch.ops.spion.attention_backward(d_o, q, k, v, o, lse, *rest)
    case = (*(x.numpy() for x in (q, k, v)), pattern.bits(), BLOCK, "masked", None, rules)
    close(o, attention(*case)[0])
    for given, right in zip(gradients, attention_gradients(d_o.numpy(), *case)):
        close(given, right)
    if spans:
        with pytest.raises(RuntimeError, match="spans must be contiguous"):
            torch.ops.spion.attention(q, k, v, *rest[:-1], mask[:, :1])


def general(case):
    """The arguments of spion::general_attention after v."""
    tables = torch.from_numpy(spion.plan(**case.fields).tables(case.pattern))
    words = case.words
    return (
        *(tables, None, BLOCK, 0.0, words["softmax"], words["causal"], None),
        *(words["softcap"], words["dropout"], case.pattern.patterns),
        *case.given(torch.from_numpy).values(),
        *((case.fields["score"],) if case.change else ()),
    )


CASES["expression"] = {"expressed": True, "shared": 2, "causal": True, "keys": 130, "sinks": True}


@pytest.mark.parametrize("name", CASES)
def test_general_attention_equals_float64(name):
    case = Case(**CASES[name])
    q, k, v, d_o = (torch.from_numpy(x) for x in (case.q, case.k, case.v, case.d_o))
    rest = general(case)
    o, lse = torch.ops.spion.general_attention(q, k, v, *rest)
    made = torch.ops.spion.general_attention_backward(d_o, q, k, v, o, lse, *rest)
    wanted = case.wanted()
    assert made[3].shape == ((q.shape[1],) if case.sinks is not None else (0,))
    assert made[4].shape == ((0, 0) if case.bias is None else case.bias.shape)
    written = [x for x in (o, lse, *made) if x.numel()]
    assert len(written) == len(wanted)
    for given, right in zip(written, wanted):
        close(given, right)


def packed_case(shared, **fields):
    """q, k, v and d_o [B, H, L, D] in NumPy, and the same of the packed operator: qkv and d_o, its arguments
    after qkv, and the pattern."""
    numbers = np.random.default_rng(shared)
    shapes = [(2, heads, LENGTH, WIDTH) for heads in (4, shared, shared, 4)]
    q, k, v, d_o = (numbers.standard_normal(shape).astype(np.float32) for shape in shapes)
    bits = numbers.random((4, 4)) < 0.6
    pattern = spion.Pattern.from_bits(bits, LENGTH, block=BLOCK)
    plan = spion.plan(
        heads=4, head_dim=WIDTH, length=LENGTH, block=BLOCK, key_value_heads=shared, causal=True,
        key_padding=True, **fields,
    )
    qkv, turned = (
        torch.from_numpy(np.concatenate(x, 1)).transpose(1, 2).contiguous() for x in ((q, k, v), (d_o,))
    )
    lengths = torch.tensor([LENGTH, 41], dtype=torch.int32)
    tables = torch.from_numpy(plan.tables(pattern))
    rest = (4, tables, lengths, BLOCK, 0.0, "masked", True, None, *fields.values())
    return (q, k, v, d_o), (qkv, turned), rest, pattern, plan


@pytest.mark.parametrize("shared", [4, 2])
def test_packed_heads_equal_float64(shared):
    (q, k, v, d_o), (qkv, turned), rest, pattern, _ = packed_case(shared)
    o, lse = torch.ops.spion.packed_attention(qkv, *rest)
    made = torch.ops.spion.packed_attention_backward(turned, qkv, o, lse, *rest)
    assert o.shape == (2, LENGTH, 4, WIDTH) and o.is_contiguous() and made.is_contiguous()
    case = (q, k, v, pattern.bits(), BLOCK, "masked", rest[2].numpy(), {"causal": True})
    wanted, wanted_lse = attention(*case)
    close(o.transpose(1, 2), wanted)
    close(lse, wanted_lse)
    parts = made.transpose(1, 2).split((4, shared, shared), 1)
    for given, right in zip(parts, attention_gradients(d_o, *case), strict=True):
        close(given, right)


def test_packed_heads_take_gaps_and_expressions():
    fields = {"score": "2*tanh(score/2)", "score_derivative": "1-tanh(score/2)*tanh(score/2)"}
    (q, k, v, d_o), (qkv, turned), rest, pattern, plan = packed_case(2, **fields)
    given = {"lengths": rest[2].numpy()}
    o, lse = plan.forward(q, k, v, pattern, **given)
    right = plan.backward(d_o, q, k, v, o, lse, pattern, **given)
    wide = torch.cat([qkv, qkv], 3)[..., :WIDTH]
    for x in (qkv, wide):
        made, made_lse = torch.ops.spion.packed_attention(x, *rest)
        gradient = torch.ops.spion.packed_attention_backward(turned, x, made, made_lse, *rest)
        assert np.array_equal(made.transpose(1, 2), o) and np.array_equal(made_lse, lse)
        assert np.array_equal(gradient.transpose(1, 2), np.concatenate(right, 1))
    for x in (qkv[0], qkv[:, :, :5], qkv[:, :, :4]):
        with pytest.raises(RuntimeError, match="give .B, L, H . 2 Hkv, D., the heads of q"):
            torch.ops.spion.packed_attention(x, *rest)
    with pytest.raises(RuntimeError, match="score_derivative '1' is not the derivative"):
        torch.ops.spion.packed_attention(qkv, *rest[:-1], "1")


def test_masks_of_other_keys():
    case = Case(keys=150)
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    case.fields["spans"] = True
    rest = list(general(case))
    rest[6] = torch.from_numpy(spion.spans(2, q.shape[2], causal=True, key_length=150))
    o, _ = torch.ops.spion.general_attention(q, k, v, *rest)
    case.fields.update(spans=False, causal=True)
    plan = spion.plan(**case.fields)
    close(o, plan.forward(case.q, case.k, case.v, case.pattern)[0])
    rest[6] = rest[6][:-2]
    with pytest.raises(RuntimeError, match=r"spans of Lk keys must be contiguous int32 \[960\]"):
        torch.ops.spion.general_attention(q, k, v, *rest)


def test_what_is_wrong_in_a_general_call_is_said():
    case = Case(sinks=True, dropout=0.25)
    q, k, v = (torch.from_numpy(x) for x in (case.q, case.k, case.v))
    rest = general(case)
    state, slopes, sinks = rest[-4:-1]  # before the bias
    for given, sentence in (
        ((state, slopes, sinks[:3]), r"sinks must be contiguous float32 \[4\]"),
        ((state.int(), slopes, sinks), r"dropout_state must be contiguous int64 \[2\]"),
        ((state, sinks.double(), sinks), r"alibi_slopes must be contiguous float32 \[4\]"),
        ((None, slopes, sinks), "dropout is null"),
    ):
        with pytest.raises(RuntimeError, match=sentence):
            torch.ops.spion.general_attention(q, k, v, *rest[:-4], *given)
    for bias, sentence in (
        (torch.zeros(4, 4), r"relative_bias must be \[H, 2R \+ 1\]"),
        (torch.zeros(3, 5), r"relative_bias must be contiguous float32 \[4, 2R \+ 1\]"),
    ):
        with pytest.raises(RuntimeError, match=sentence):
            torch.ops.spion.general_attention(q, k, v, *rest[:-1], bias)


STARTS, KEY_STARTS = np.array([0, 100, 117, 160], np.int32), np.array([0, 30, 90, 120], np.int32)


def sequences(across):
    """q, k, v, d_o of sequences end to end, the arguments of spion::varlen_attention after v, and the
    pattern of each."""
    torch.manual_seed(0)
    starts = KEY_STARTS if across else STARTS
    q, d_o = (torch.randn(160, 4, WIDTH) for _ in range(2))
    k, v = (torch.randn(int(starts[-1]), 2, WIDTH) for _ in range(2))
    keys = 60 if across else LENGTH
    own = {"key_starts": True, "sequence_patterns": 4} if across else {}
    numbers = np.random.default_rng(3)
    each = [numbers.random((4, -(-keys // BLOCK))) < 0.7 for _ in range(3 if across else 1)]
    patterns = [spion.Pattern.from_bits(x, LENGTH, block=BLOCK, key_length=keys) for x in each]
    plan = spion.plan(
        heads=4, head_dim=WIDTH, length=LENGTH, block=BLOCK, key_value_heads=2, key_length=keys,
        varlen=True, **own,
    )
    given = {"cu_seqlens": STARTS, **({"key_cu_seqlens": starts} if across else {})}
    spans = spion.spans(3, LENGTH, causal=True, key_length=keys, **given)
    tables = plan.tables(spion.Pattern.from_heads(patterns) if across else patterns[0])
    rest = (
        torch.from_numpy(tables), torch.from_numpy(STARTS), torch.from_numpy(spans), LENGTH, BLOCK,
        0.0, "masked", 0.0, 0.0, 1, None, None, None, None,
    )
    if across:
        rest = (*rest, 4, torch.from_numpy(starts), keys)
    return (q, k, v, d_o), rest, each, starts


@pytest.mark.parametrize("across", [False, True])
def test_sequences_equal_float64(across):
    (q, k, v, d_o), rest, each, starts = sequences(across)
    o, lse = torch.ops.spion.varlen_attention(q, k, v, *rest)
    made = torch.ops.spion.varlen_attention_backward(d_o, q, k, v, o, lse, *rest)
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    total = 0
    for b in range(3):
        queries, keys = slice(*STARTS[b : b + 2]), slice(*starts[b : b + 2])
        length, count = queries.stop - queries.start, keys.stop - keys.start
        kept = np.repeat(np.repeat(each[b % len(each)], BLOCK, 0), BLOCK, 1)[:length, :count]
        kept = kept & (np.arange(count) <= np.arange(length)[:, None] + count - length)
        own_q = wide[0][queries].transpose(0, 1)
        own_k, own_v = (x[keys].transpose(0, 1).repeat_interleave(2, 0) for x in wide[1:])
        scores = (own_q @ own_k.transpose(1, 2) / WIDTH**0.5).masked_fill(
            ~torch.from_numpy(kept), -torch.inf
        )
        wanted = torch.nan_to_num(scores.softmax(-1)) @ own_v
        close(o[queries].transpose(0, 1), wanted.detach())
        close(lse[b, :, :length], scores.logsumexp(-1).detach())
        assert torch.isneginf(lse[b, :, length:]).all()
        total = total + (wanted * d_o[queries].transpose(0, 1)).sum()
    for given, right in zip(made, torch.autograd.grad(total, wide)):
        close(given, torch.nan_to_num(right))


def test_expressions_of_sequences():
    """The same bits as of NumPy, and others than without."""
    (q, k, v, _), rest, each, _ = sequences(False)
    text = "score-0.1*log(1+fabs(q-k))"
    plan = spion.plan(
        heads=4, head_dim=WIDTH, length=LENGTH, block=BLOCK, key_value_heads=2, varlen=True, score=text
    )
    pattern = spion.Pattern.from_bits(each[0], LENGTH, block=BLOCK)
    tables = torch.from_numpy(plan.tables(pattern))
    o, _ = torch.ops.spion.varlen_attention(q, k, v, tables, *rest[1:], 0, None, 0, text)
    arrays = (x.transpose(0, 1).numpy() for x in (q, k, v))
    wanted, _ = plan.forward(*arrays, pattern, spans=rest[2].numpy(), cu_seqlens=STARTS)
    assert np.array_equal(o.transpose(0, 1), wanted)
    assert not torch.allclose(o, torch.ops.spion.varlen_attention(q, k, v, *rest)[0], atol=1e-3)


def test_what_is_wrong_with_sequences_is_said():
    (q, k, v, _), rest, *_ = sequences(False)
    with pytest.raises(RuntimeError, match="a tensor has 4 dimensions: give .T, H, D."):
        torch.ops.spion.varlen_attention(q[None], k, v, *rest)
    with pytest.raises(RuntimeError, match="spans must be contiguous int32 of 2 . B . .L . Lk. = 1200"):
        torch.ops.spion.varlen_attention(q, k, v, *rest[:2], rest[2][:1], *rest[3:])
    with pytest.raises(RuntimeError, match="cu_seqlens must be int32"):
        torch.ops.spion.varlen_attention(q, k, v, rest[0], rest[1][:1], *rest[2:])
    with pytest.raises(RuntimeError, match="cu_seqlens ends with 160 and the tensors have 159 rows"):
        torch.ops.spion.varlen_attention(q[:159], k[:159], v[:159], *rest)


def test_what_is_wrong_is_said():
    q = torch.randn(1, HEADS, LENGTH, WIDTH)
    tables = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="tables of 16 bytes"):
        torch.ops.spion.attention(q, q, q, tables, None, BLOCK, 0.0, "masked")
    with pytest.raises(RuntimeError, match="softmax is hard"):
        torch.ops.spion.attention(q, q, q, tables, None, BLOCK, 0.0, "hard")
    with pytest.raises(RuntimeError, match="float32, bfloat16 and float16"):
        torch.ops.spion.attention(q.double(), q, q, tables, None, BLOCK, 0.0, "masked")


def test_a_process_has_one_registrar():
    with pytest.raises(RuntimeError, match="registered already"):
        import spion.torch
