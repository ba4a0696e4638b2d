"""libspion_torch.so on a GPU, in a process that has not loaded spion.torch. Skipped where there is none."""

import os

import numpy as np
import pytest
import torch
from cases import CASES, Case
from oracle import attention, attention_gradients, close

import spion

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: there is no GPU")
LENGTH, HEADS = 300, 4
EXPRESSED = {"score": "2*tanh(score/2)", "score_derivative": "1-tanh(score/2)*tanh(score/2)"}


@pytest.fixture(scope="module", autouse=True)
def loaded():
    torch.ops.load_library(os.environ["SPION_TORCH_LIBRARY"])


def rounded(x):
    return torch.from_numpy(x).bfloat16().float().numpy()


def on_gpu(x):
    return torch.from_numpy(x).cuda()


def random_tensors(*heads, width):
    numbers = np.random.default_rng(width)
    return [
        rounded(numbers.standard_normal((2, h, LENGTH, width)).astype(np.float32)) for h in heads
    ]


def random_pattern(block):
    blocks = -(-LENGTH // block)
    bits = np.random.default_rng(block).random((blocks, blocks)) < 0.6
    return spion.Pattern.from_bits(bits, LENGTH, block=block)


def packed_of(*tensors):
    """Heads of [B, H, L, D] side by side, [B, L, H, D]."""
    return on_gpu(np.concatenate(tensors, 1)).bfloat16().transpose(1, 2).contiguous()


@pytest.mark.parametrize("fields", [{}, EXPRESSED], ids=["plain", "expression"])
@pytest.mark.parametrize("width, block, shared", [(64, 64, 4), (64, 64, 2), (32, 32, 4), (128, 128, 1)])
def test_packed_heads(width, block, shared, fields):
    """The bits of plan.forward and plan.backward of three tensors, and without an expression float64's."""
    q, k, v, d_o = random_tensors(HEADS, shared, shared, HEADS, width=width)
    pattern = random_pattern(block)
    plan = spion.plan(
        heads=HEADS, head_dim=width, length=LENGTH, block=block, key_value_heads=shared, causal=True,
        key_padding=True, device="cuda:0", **fields,
    )
    lengths = np.array([LENGTH, 41], np.int32)
    tables, given = on_gpu(plan.tables(pattern)), on_gpu(lengths)
    rest = (HEADS, tables, given, block, 0.0, "masked", True, None, *fields.values())
    qkv, turned = packed_of(q, k, v), packed_of(d_o)
    o, lse = torch.ops.spion.packed_attention(qkv, *rest)
    made = torch.ops.spion.packed_attention_backward(turned, qkv, o, lse, *rest)
    assert o.is_contiguous() and made.is_contiguous()
    apart = [on_gpu(x).bfloat16() for x in (q, k, v, d_o)]
    right, right_lse = plan.forward(*apart[:3], pattern, lengths=given)
    gradients = plan.backward(apart[3], *apart[:3], right, right_lse, pattern, lengths=given)
    assert torch.equal(o.transpose(1, 2), right) and torch.equal(lse, right_lse)
    assert torch.equal(made.transpose(1, 2), torch.cat(list(gradients), 1))
    if not fields:
        case = (q, k, v, pattern.bits(), block, "masked", lengths, {"causal": True})
        close(right.float().cpu(), attention(*case)[0], 2e-2)
        for one, wanted in zip(gradients, attention_gradients(d_o, *case), strict=True):
            close(one.float().cpu(), wanted, 2e-2)


CASES["expression"] = {"expressed": True, "shared": 2, "causal": True, "keys": 130, "sinks": True}


@pytest.mark.parametrize("name", CASES)
def test_general_attention_equals_float64(name):
    case = Case(**CASES[name])
    for array in ("q", "k", "v", "d_o"):
        setattr(case, array, rounded(getattr(case, array)))
    q, k, v, d_o = (on_gpu(x).bfloat16() for x in (case.q, case.k, case.v, case.d_o))
    plan, words = spion.plan(device="cuda:0", **case.fields), case.words
    rest = (
        *(on_gpu(plan.tables(case.pattern)), None, case.fields["block"], 0.0, words["softmax"]),
        *(words["causal"], None, words["softcap"], words["dropout"], case.pattern.patterns),
        *case.given(on_gpu).values(),
        *((case.fields["score"],) if case.change else ()),
    )
    o, lse = torch.ops.spion.general_attention(q, k, v, *rest)
    made = torch.ops.spion.general_attention_backward(d_o, q, k, v, o, lse, *rest)
    written = [x for x in (o, lse, *made) if x.numel()]
    for given, right in zip(written, case.wanted(), strict=True):
        close(given.float().cpu(), right, 3e-2)


def test_sequences_have_the_bits_of_the_plan():
    starts, longest = np.array([0, 300, 317, 420], np.int32), 300
    numbers = np.random.default_rng(1)
    q, k, v, d_o = (
        on_gpu(numbers.standard_normal((420, heads, 64)).astype(np.float32)).bfloat16()
        for heads in (4, 2, 2, 4)
    )
    pattern = random_pattern(64)
    plan = spion.plan(
        heads=4, head_dim=64, length=longest, block=64, key_value_heads=2, varlen=True, device="cuda:0"
    )
    spans = on_gpu(spion.spans(3, longest, causal=True, cu_seqlens=starts))
    given = on_gpu(starts)
    rest = (
        *(on_gpu(plan.tables(pattern)), given, spans, longest, 64, 0.0, "masked", 0.0, 0.0, 1),
        *(None, None, None, None),
    )
    o, lse = torch.ops.spion.varlen_attention(q, k, v, *rest)
    made = torch.ops.spion.varlen_attention_backward(d_o, q, k, v, o, lse, *rest)
    turned = [x.transpose(0, 1) for x in (q, k, v, d_o)]
    words = {"spans": spans, "cu_seqlens": starts}
    right, right_lse = plan.forward(*turned[:3], pattern, **words)
    assert torch.equal(o.transpose(0, 1), right)
    gradients = plan.backward(turned[3], *turned[:3], right, right_lse, pattern, **words)
    for one, wanted in zip(made, gradients):
        assert torch.equal(one.transpose(0, 1), wanted) and wanted.abs().max() > 0
    for b, (begin, end) in enumerate(zip(starts, starts[1:])):
        assert torch.equal(lse[b, :, : end - begin], right_lse[b, :, : end - begin])
