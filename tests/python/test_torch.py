"""The PyTorch operator on the host: numbers, gradients, and what PyTorch itself asks of operators."""

import numpy as np
import pytest
import torch
from oracle import attention, attention_gradients, close

import spion
import spion.torch as st

BLOCK = 32


def tensors(*shape, seed=0, count=3, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).requires_grad_(grad) for _ in range(count)]


def random_pattern(length, density=0.4, seed=0):
    rows = -(-length // BLOCK)
    bits = np.random.default_rng(seed).random((rows, rows)) < density
    bits[0] = False
    return spion.Pattern.from_bits(bits, length, block=BLOCK)


def arguments(length=128, heads=2, width=16, batch=2, lengths=None, softmax="masked", seed=0):
    """Those of torch.ops.spion.attention."""
    plan = st.plan(
        heads=heads,
        head_dim=width,
        length=length,
        block=BLOCK,
        softmax=softmax,
        key_padding=lengths is not None,
    )
    q, k, v = tensors(batch, heads, length, width, seed=seed)
    tables = st.tables(random_pattern(length, seed=seed), plan)
    return q, k, v, tables, lengths, BLOCK, 0.0, softmax


@pytest.mark.parametrize("softmax", ["masked", "pruned_zero"])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_float64(softmax, padded):
    length = 150
    q, k, v = tensors(3, 2, length, 16)
    d_o = torch.randn(3, 2, length, 16)
    lengths = torch.tensor([150, 0, 77], dtype=torch.int32) if padded else None
    pattern = random_pattern(length)
    o, lse = st.attention_with_lse(q, k, v, pattern, lengths=lengths, softmax=softmax)
    o.backward(d_o)
    case = [x.detach().numpy() for x in (q, k, v)]
    rest = (pattern.bits(), BLOCK, softmax, None if lengths is None else lengths.numpy())
    wanted_o, wanted_lse = attention(*case, *rest)
    close(o.detach(), wanted_o)
    close(lse.detach(), wanted_lse)
    for given, wanted in zip((q.grad, k.grad, v.grad), attention_gradients(d_o, *case, *rest)):
        close(given, wanted)


def test_same_bits_as_numpy_and_compiled():
    q, k, v = tensors(2, 2, 128, 16, grad=False)
    pattern = random_pattern(128)
    eager = st.attention(q, k, v, pattern)
    plan = spion.plan(heads=2, head_dim=16, length=128, block=BLOCK)
    assert np.array_equal(plan.forward(q.numpy(), k.numpy(), v.numpy(), pattern)[0], eager)
    direct, _ = plan.forward(q, k, v, pattern)
    assert isinstance(direct, torch.Tensor) and torch.equal(direct, eager)
    args = arguments()
    compiled = torch.compile(torch.ops.spion.attention, fullgraph=True)
    assert torch.equal(compiled(*args)[0], torch.ops.spion.attention(*args)[0])


@pytest.mark.parametrize("padded", [False, True])
def test_opcheck(padded):
    lengths = torch.tensor([128, 50], dtype=torch.int32) if padded else None
    args = arguments(lengths=lengths)
    torch.library.opcheck(torch.ops.spion.attention, args)
    q, k, v = (torch.randn(2, 128, 2, 16).transpose(1, 2).requires_grad_() for _ in range(3))
    torch.library.opcheck(torch.ops.spion.attention, (q, k, v, *args[3:]))
    torch.library.opcheck(
        torch.ops.spion.attention,
        tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in args),
    )
    with torch.no_grad():
        o, lse = torch.ops.spion.attention(*args)
        plain = [x.detach() for x in args[:3]]
        torch.library.opcheck(
            torch.ops.spion.attention_backward,
            (torch.randn_like(o), *plain, o, lse, *args[3:]),
        )


@pytest.mark.filterwarnings("ignore:Input #. requires gradient")
def test_gradcheck():
    """The step is 1e-2 and the tolerance 1e-2: fp32 with 24 bits leaves 1e-5 of the difference."""
    args = arguments(length=40, batch=1, heads=1)
    q, k, v = (0.3 * x.detach() for x in args[:3])
    leaves = [x.requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(
        lambda *x: torch.ops.spion.attention(*x, *args[3:])[0],
        leaves,
        eps=1e-2,
        atol=1e-2,
        rtol=1e-2,
        fast_mode=True,
    )


def test_gradients_that_are_not_there_are_refused():
    args = arguments()
    assert not torch.ops.spion.attention(*args)[1].requires_grad
    o, lse = st.attention_with_lse(*args[:3], random_pattern(128))
    with pytest.raises(ValueError, match="lse has no gradient"):
        (o.sum() + lse.sum()).backward()
    o, _ = torch.ops.spion.attention(*args)
    (d_q,) = torch.autograd.grad(o.square().sum(), args[0], create_graph=True)
    with pytest.raises(ValueError, match="cannot be differentiated twice"):
        d_q.sum().backward()


def test_gradients_of_any_strides():
    args = arguments()
    q = args[0]
    o, _ = torch.ops.spion.attention(*args)
    o.sum().backward()  # d_o has strides of 0
    expanded = q.grad.clone()
    q.grad = None
    torch.ops.spion.attention(*args)[0].backward(torch.ones_like(o))
    assert torch.equal(q.grad, expanded)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda x: x.to(torch.complex64), "of torch.complex64"),
        (lambda x: x.double(), "of torch.float64"),
        (lambda x: x[0], "q has shape"),
        (
            lambda x: torch.quantize_per_tensor(x.detach(), 0.1, 0, torch.qint8),
            "qint8|QuantizedCPU",
        ),
    ],
)
def test_tensors_that_are_refused(change, sentence):
    args = arguments()
    with pytest.raises((ValueError, RuntimeError), match=sentence):
        torch.ops.spion.attention(change(args[0]), *args[1:])


def test_lazy_bits():
    """The operator resolves a negation that waits, by PyTorch's own fallback; a plan refuses it."""
    args = arguments()
    q, k, v = (x.detach() for x in args[:3])
    lazy = torch._neg_view(q)
    assert lazy.is_neg()
    wanted = torch.ops.spion.attention(-q, k, v, *args[3:])[0]
    assert torch.equal(torch.ops.spion.attention(lazy, k, v, *args[3:])[0], wanted)
    plan = spion.plan(heads=2, head_dim=16, length=128, block=BLOCK)
    with pytest.raises(ValueError, match="q is negated or conjugated lazily"):
        plan.forward(lazy, k, v, random_pattern(128))
    with pytest.raises(ValueError, match="device meta"):
        plan.forward(q.to("meta"), k, v, random_pattern(128))


def test_autocast_on_the_host_computes_in_fp32():
    args = arguments()
    q, k, v = (x.detach().bfloat16() for x in args[:3])
    with torch.autocast("cpu", torch.bfloat16):
        o, _ = torch.ops.spion.attention(q, k, v, *args[3:])
    assert o.dtype == torch.float32
    wanted = torch.ops.spion.attention(q.float(), k.float(), v.float(), *args[3:])[0]
    assert torch.equal(o, wanted)


def test_tables_of_another_plan_are_refused():
    args = arguments()
    with pytest.raises(ValueError, match="the tables have shape"):
        torch.ops.spion.attention(*args[:3], args[3][:-16], *args[4:])
    with pytest.raises(ValueError, match="written"):
        torch.ops.spion.attention(*args[:3], torch.zeros_like(args[3]), *args[4:])


def test_a_second_registration_is_refused():
    from spion.torch import _op

    with pytest.raises(RuntimeError, match="registered already"):
        _op._register()
