"""Functions and modules go around PyTorch's dispatcher where it has no part in a call, and only there."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import spion
import spion.torch as st
from spion.torch import _op

BLOCK, HEADS, LENGTH, WIDTH = 16, 2, 40, 16
OPERATOR = torch.ops.spion.attention.default


@pytest.fixture
def layer():
    bits = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]], np.uint8)
    pattern = spion.Pattern.from_bits(bits, LENGTH, block=BLOCK)
    made = st.BlockSparseAttention(pattern, heads=HEADS, head_dim=WIDTH)
    made(*tensors())  # its plan is known from here on
    return made


@pytest.fixture
def calls(monkeypatch):
    """The calls that functions and modules send to the dispatcher."""
    made = []

    def counted(*args):
        made.append(args)
        return OPERATOR(*args)

    monkeypatch.setattr(_op, "dispatched", counted)
    return made


def tensors(grad=False, seed=0, **kind):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, HEADS, LENGTH, WIDTH)
    made = (torch.randn(shape, generator=generator).to(**kind) for _ in range(3))
    return [x.requires_grad_(grad) for x in made]


def rest(layer):
    return layer.tables, None, BLOCK, 0.0, "masked"


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_same_bits_around_it(layer, calls, grad, turned):
    given = tensors(grad)
    if turned:
        given = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in given]
        given = [x.requires_grad_(grad) for x in given]
    o, lse = layer.with_lse(*given)
    assert torch.equal(layer(*given), o) and not calls
    wanted, wanted_lse = OPERATOR(*given, *rest(layer))
    assert torch.equal(o, wanted) and torch.equal(lse, wanted_lse)
    assert (o.stride(), lse.stride()) == (wanted.stride(), wanted_lse.stride())
    assert o.stride() == torch.empty_like(given[0]).stride()
    assert (o.requires_grad, lse.requires_grad) == (grad, False)
    if grad:
        d_o = torch.randn(o.shape, generator=torch.Generator().manual_seed(7))
        found, right = (torch.autograd.grad(x, given, d_o) for x in (o, wanted))
        assert all(torch.equal(x, y) for x, y in zip(found, right))


def test_strides_of_outputs_are_those_of_empty_like(layer):
    wide = torch.randn(2, HEADS, LENGTH, 2 * WIDTH)
    for q in (
        wide[..., :WIDTH],
        wide[..., :WIDTH].transpose(0, 1).contiguous().transpose(0, 1),
        wide[:1, :, :, :WIDTH].expand(2, -1, -1, -1),
        torch.randn(1, HEADS, LENGTH, WIDTH),
        torch.randn(LENGTH, HEADS, 2, WIDTH).permute(2, 1, 0, 3),
    ):
        k, v = (torch.randn(*q.shape) for _ in range(2))
        o, _ = OPERATOR(q, k, v, *rest(layer))
        assert o.stride() == torch.empty_like(q).stride()
        assert torch.equal(o, OPERATOR(q.contiguous(), k, v, *rest(layer))[0])


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class SeenFunctions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("mode", [Seen, SeenFunctions])
def test_modes_see_the_operator(layer, calls, mode, grad):
    given = tensors(grad)
    wanted = layer(*given)
    with mode() as seen:
        o = layer(*given)
    assert any("spion.attention" in name for name in seen.names) and len(calls) == 1
    assert torch.equal(o, wanted)


def test_a_profiler_sees_the_operator(layer):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(*tensors())
    assert "spion::attention" in {event.key for event in profile.key_averages()}


def test_fake_and_meta_tensors(layer, calls):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        given = [torch.empty(2, HEADS, LENGTH, WIDTH) for _ in range(3)]
        o = layer(*given)
    assert type(o).__name__ == "FakeTensor" and o.shape == given[0].shape
    tables = layer.tables.to("meta")
    for grad in (False, True):
        meta = [x.to("meta").requires_grad_(grad) for x in tensors()]
        o, lse = _op.call(*meta, tables, None, BLOCK, 0.0, "masked", False, None)
        assert o.is_meta and lse.shape == (2, HEADS, LENGTH) and o.requires_grad == grad


def test_a_subclass_and_waiting_bits(layer, calls):
    class Tagged(torch.Tensor):
        pass

    q, k, v = tensors()
    wanted = layer(q, k, v)
    assert type(layer(q.as_subclass(Tagged), k, v)) is Tagged and len(calls) == 1
    lazy = torch._neg_view(-q)
    assert lazy.is_neg() and torch.equal(layer(lazy, k, v), wanted) and len(calls) == 2
    nothing = torch._efficientzerotensor(2, HEADS, LENGTH, WIDTH)
    assert torch.equal(layer(nothing, k, v), layer(torch.zeros_like(q), k, v))


def test_autocast(layer, calls):
    half = tensors(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        o = st.attention(*half, layer.pattern)
        assert torch.equal(layer(*half), o) and o.dtype == torch.float32
    assert len(calls) == 2
    assert torch.equal(o, layer(*(x.float() for x in half)))


def outcome(run):
    with contextlib.suppress(Exception):
        return run()
    return None


@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp", "functionalize"])
def test_transforms_are_the_operators_affair(layer, calls, transform):
    """Whatever it makes of them: the same answer, or none from either."""
    q, k, v = tensors()
    words = (layer.tables, None, BLOCK, 0.0, "masked", False, None)

    def transformed(attention):
        def loss(x):
            return attention(x, k, v)[0].square().sum()

        if transform == "vmap":
            return torch.vmap(lambda x: attention(x, k, v)[0])(torch.stack([q, k]))
        if transform == "grad":
            return torch.func.grad(loss)(q)
        if transform == "jvp":
            return torch.func.jvp(loss, (q,), (torch.ones_like(q),))[1]
        return torch.func.functionalize(lambda x: attention(x, k, v)[0] * 2)(q)

    found = outcome(lambda: transformed(lambda *x: _op.call(*x, *words)))
    assert calls
    wanted = outcome(lambda: transformed(lambda *x: OPERATOR(*x, *words)))
    assert (found is None) == (wanted is None)
    if wanted is not None:
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("function", [False, True])
def test_derivatives_in_forward_mode_are_refused(layer, function):
    """They would be zero: autograd knows no tangent of what a kernel writes."""
    q, k, v = tensors()
    with pytest.raises(spion.UserError, match="no derivative in forward mode"):
        if function:
            torch.func.jvp(lambda x: layer(x, k, v), (q,), (torch.ones_like(q),))
        else:
            with torch.autograd.forward_ad.dual_level():
                layer(q, torch.autograd.forward_ad.make_dual(k, torch.ones_like(k)), v)
    with torch.autograd.forward_ad.dual_level():
        assert torch.equal(layer(q, k, v), OPERATOR(q, k, v, *rest(layer))[0])


def test_export_and_compiled_graphs_have_the_operator(layer):
    given = tuple(tensors())
    graph = torch.export.export(layer, given).graph
    assert OPERATOR in {node.target for node in graph.nodes}
    seen = []

    def keep(graph, _):
        seen.extend(node.target for node in graph.graph.nodes)
        return graph.forward

    torch._dynamo.reset()
    assert torch.equal(torch.compile(layer, backend=keep, fullgraph=True)(*given), layer(*given))
    assert OPERATOR in seen


def test_within_a_kernel_of_another_operator_nothing_records(layer):
    results = []

    @torch.library.custom_op("spion_test::scaled", mutates_args=())
    def scaled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        results.append(layer(q, k, v))
        return 2 * results[-1]

    q, k, v = tensors(grad=True)
    scaled(q, k, v)
    assert not results[0].requires_grad


def test_a_call_that_has_no_plan_yet_makes_one(calls):
    q, k, v = (torch.randn(1, 1, 48, 24, requires_grad=True) for _ in range(3))
    pattern = spion.Pattern.full(48, block=BLOCK)
    first, second = (st.attention(q, k, v, pattern) for _ in range(2))
    assert len(calls) == 1 and torch.equal(first, second)
    assert all(
        torch.equal(x, y)
        for x, y in zip(*(torch.autograd.grad(o.sum(), (q, k, v)) for o in (first, second)))
    )


def test_errors_are_those_of_the_operator(layer):
    q, k, v = tensors()
    words = (None, BLOCK, 0.0, "masked", False, None)
    for tables, message in (
        (layer.tables[:-8], "the tables have shape"),
        (torch.zeros_like(layer.tables), "written"),
    ):
        for grad in (False, True):
            leaf = q.clone().requires_grad_(grad)
            for attention in (_op.call, OPERATOR):
                with pytest.raises(spion.UserError, match=message):
                    attention(leaf, k, v, tables, *words)


def test_options_that_change_are_seen(layer, calls):
    """Though which operator a module takes is not looked for at each call."""
    q, k, v = tensors()
    plain, copied = layer(q, k, v), copy.deepcopy(layer)
    for name, value in (("softcap", 2.0), ("score", "0.5*score"), ("sinks", torch.nn.Parameter(torch.ones(HEADS)))):
        setattr(layer, name, value)
        with pytest.raises(spion.UserError, match="tables were written for another plan"):
            layer(q, k, v)
        layer.set_pattern(layer.pattern)
        assert torch.equal(layer(q, k, v), st.attention(q, k, v, layer.pattern, **{name: value}))
        assert not torch.allclose(layer(q, k, v), plain, atol=1e-3)
        setattr(layer, name, {"softcap": 0.0, "score": "", "sinks": None}[name])
        layer.set_pattern(layer.pattern)
        assert torch.equal(layer(q, k, v), plain)
    assert torch.equal(copied(q, k, v), plain) and not calls


def test_a_pattern_that_changed_before_the_backward_pass_is_refused(layer):
    o = layer(*tensors(grad=True))
    layer.set_pattern(layer.pattern.transpose())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        o.sum().backward()
