"""The package on a GPU: numbers, streams, CUDA graphs, compilation. Skipped where there is none."""

import numpy as np
import pytest
import reference
import test_options
import test_scores
import torch
from oracle import attention, attention_gradients, close

import spion
import spion.torch as st
from spion import _core

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: there is no GPU")
BLOCK = 64
TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


def tensors(*shape, dtype=torch.bfloat16, count=3, grad=False, seed=0):
    generator = torch.Generator("cuda").manual_seed(seed)
    made = [torch.randn(shape, generator=generator, device="cuda").to(dtype) for _ in range(count)]
    return [x.requires_grad_(grad) for x in made]


def random_pattern(length, seed=0, density=0.4, block=BLOCK):
    rows = -(-length // block)
    bits = np.random.default_rng(seed).random((rows, rows)) < density
    return spion.Pattern.from_bits(bits | np.eye(rows, dtype=bool), length, block=block)


def numbers(*given):
    return [x.detach().float().cpu().numpy() for x in given]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    "width, block, padded", [(64, 64, False), (32, 32, True), (128, 128, True)]
)
def test_equals_float64(dtype, width, block, padded):
    length = 500
    q, k, v = tensors(2, 3, length, width, dtype=dtype, grad=True)
    (d_o,) = tensors(2, 3, length, width, dtype=dtype, count=1, seed=1)
    pattern = random_pattern(length, block=block)
    lengths = torch.tensor([500, 133], dtype=torch.int32, device="cuda") if padded else None
    o, lse = st.attention_with_lse(q, k, v, pattern, lengths=lengths)
    o.backward(d_o)
    rest = (pattern.bits(), block, "masked", None if lengths is None else lengths.cpu().numpy())
    case = numbers(q, k, v)
    wanted_o, wanted_lse = attention(*case, *rest)
    close(*numbers(o), wanted_o, TOLERANCES[dtype])
    close(*numbers(lse), wanted_lse, TOLERANCES[dtype])
    gradients = attention_gradients(*numbers(d_o), *case, *rest)
    for given, wanted in zip(numbers(q.grad, k.grad, v.grad), gradients):
        close(given, wanted, TOLERANCES[dtype])


def test_masks_within_blocks_and_grouped_heads():
    length, rules = 300, {"causal": True, "left": 90, "query_lengths": [300, 170]}
    (q,) = tensors(2, 4, length, 64, count=1, grad=True)
    k, v = tensors(2, 2, length, 64, count=2, grad=True, seed=1)
    (d_o,) = tensors(2, 4, length, 64, count=1, seed=2)
    pattern = random_pattern(length)
    spans = st.spans(2, length, device="cuda", **rules)
    o = st.attention(q, k, v, pattern, spans=spans)
    o.backward(d_o)
    rest = (*numbers(q, k, v), pattern.bits(), BLOCK, "masked", None, rules)
    close(*numbers(o), attention(*rest)[0], TOLERANCES[torch.bfloat16])
    gradients = attention_gradients(*numbers(d_o), *rest)
    for given, wanted in zip(numbers(q.grad, k.grad, v.grad), gradients):
        close(given, wanted, TOLERANCES[torch.bfloat16])


@pytest.mark.parametrize("block", [32, 64, 128])
def test_sequences_end_to_end(block):
    starts, longest = np.array([0, 300, 300, 417], np.int32), 300
    (q,) = tensors(417, 4, 64, count=1, grad=True)
    k, v = tensors(417, 2, 64, count=2, grad=True, seed=1)
    (d_o,) = tensors(417, 4, 64, count=1, seed=2)
    pattern = random_pattern(longest, block=block)
    on_gpu = torch.from_numpy(starts).cuda()
    o = st.varlen_attention(q, k, v, pattern, on_gpu, causal=True)
    o.backward(d_o)
    for begin, end in ((0, 300), (300, 417)):
        own = [x[begin:end].transpose(0, 1)[None] for x in (q, k, v, o, d_o, q.grad, k.grad, v.grad)]
        *case, made, gradient, d_q, d_k, d_v = numbers(*own)
        rest = (*case, pattern.bits(), block, "masked", None, {"causal": True})
        close(made, attention(*rest)[0], TOLERANCES[torch.bfloat16])
        for given, wanted in zip((d_q, d_k, d_v), attention_gradients(gradient, *rest)):
            close(given, wanted, TOLERANCES[torch.bfloat16])


@pytest.mark.parametrize("name", test_options.CASES)
def test_options_equal_float64(name):
    """In bf16, of the cases of the host."""
    case = test_options.Case(**test_options.CASES[name])
    for array in ("q", "k", "v", "d_o"):
        setattr(case, array, torch.from_numpy(getattr(case, array)).bfloat16().float().numpy())
    q, k, v, d_o = (
        torch.from_numpy(x).to("cuda", torch.bfloat16) for x in (case.q, case.k, case.v, case.d_o)
    )
    given = case.given(lambda x: torch.from_numpy(x).cuda())
    leaves = [q.requires_grad_(), k.requires_grad_(), v.requires_grad_()]
    learnt = test_options.LEARNT
    leaves += [given[x].requires_grad_() for x in learnt if given[x] is not None]
    o, lse = st.attention_with_lse(q, k, v, case.pattern, **case.words, **given)
    gradients = torch.autograd.grad(o, leaves, d_o)
    for made, right in zip((o, lse, *gradients), case.wanted()):
        close(made.detach().float().cpu().numpy(), right, 3e-2)


@pytest.mark.parametrize("name", test_scores.EXPRESSIONS)
def test_expressions_of_scores(name):
    """As float64 has them; packed heads have the bits of three tensors."""
    text, function = test_scores.EXPRESSIONS[name]
    *leaves, d_o = tensors(2, 4, 300, 64, count=4)
    pattern = random_pattern(300)
    qkv = torch.cat([x.transpose(1, 2) for x in leaves], 2).requires_grad_()
    wide = [x.double().cpu().requires_grad_() for x in leaves]
    right, _ = reference.attention(
        *wide, pattern.bits()[None], BLOCK, causal=True, change=test_scores.change_of(function)
    )
    wanted = right, *torch.autograd.grad(right, wide, d_o.double().cpu())
    leaves = [x.requires_grad_() for x in leaves]
    o = st.attention(*leaves, pattern, causal=True, score=text)
    found = o, *torch.autograd.grad(o, leaves, d_o)
    for made, expected in zip(found, wanted, strict=True):
        close(*numbers(made, expected), TOLERANCES[torch.bfloat16])
    o = st.packed_attention(qkv, pattern, causal=True, score=text)
    (gradient,) = torch.autograd.grad(o, qkv, d_o.transpose(1, 2))
    assert torch.equal(o.transpose(1, 2), found[0])
    assert torch.equal(gradient, torch.cat([x.transpose(1, 2) for x in found[1:]], 2))


def test_a_replayed_graph_drops_others():
    q, k, v = tensors(2, 4, 256, 64)
    layer = st.BlockSparseAttention(
        spion.Pattern.full(256, block=64),
        heads=4,
        head_dim=64,
        dtype=torch.bfloat16,
        device="cuda",
        dropout=0.25,
    )
    layer(q, k, v)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        o = layer(q, k, v)
    seen = []
    for _ in range(3):
        graph.replay()
        seen.append(o.clone())
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    layer.eval()
    wanted = st.attention(q, k, v, layer.pattern)
    assert torch.allclose(layer(q, k, v), wanted, atol=1e-2)
    mean = torch.stack(seen).float().mean(0)
    assert (mean - wanted.float()).abs().mean() < 0.1


def test_the_elements_of_the_contract_drop():
    """Those of kernels/random.h, which test_options.py holds the host to."""
    state = torch.from_numpy(spion.dropout_state(5, 9)).cuda()
    q = torch.zeros(1, 2, 128, 64, device="cuda", dtype=torch.bfloat16)
    v = torch.eye(128, device="cuda", dtype=torch.bfloat16).expand(1, 2, 128, 128)
    pattern = spion.Pattern.full(128, block=64)
    kept = reference.kept_factors(0.3, 5, 9, 1, 2, 128, 128) > 0
    for half, right in ((v[..., :64], kept[..., :64]), (v[..., 64:], kept[..., 64:])):
        o = st.attention(q, q, half, pattern, dropout=0.3, dropout_state=state)
        assert torch.equal(o.cpu() != 0, right)


def test_tables_of_another_plan_are_refused_at_once():
    q, k, v = tensors(1, 2, 256, 64)
    pattern = random_pattern(256)
    words = (None, BLOCK, 0.0, "masked")
    plan = st.plan(heads=2, head_dim=64, length=256, dtype=torch.bfloat16, device="cuda")
    good, o = st.tables(pattern, plan), st.attention(q, k, v, pattern)
    assert torch.equal(torch.ops.spion.attention(q, k, v, good, *words)[0], o)
    zeros = torch.zeros_like(good)
    zeros._spion_head = (bytes(64), zeros._version)
    with pytest.raises(ValueError, match="written"):
        torch.ops.spion.attention(q, k, v, zeros, *words)
    with torch.no_grad():
        zeros.copy_(good)  # the note about what was there before counts no more
    assert torch.equal(torch.ops.spion.attention(q, k, v, zeros, *words)[0], o)
    other = random_pattern(256, seed=5)
    st.tables(other, plan, out=good)
    assert torch.equal(
        torch.ops.spion.attention(q, k, v, good, *words)[0], st.attention(q, k, v, other)
    )


def test_kept_workspaces_are_left_as_they_were_found():
    q, k, v = tensors(2, 4, 512, 64, grad=True)
    (d_o,) = tensors(2, 4, 512, 64, count=1, seed=1)
    pattern, other = random_pattern(512), random_pattern(512, seed=1)
    wanted = None
    for _ in range(50):
        o = st.attention(q, k, v, pattern)
        found = [o, *torch.autograd.grad(o, (q, k, v), d_o)]
        wanted = wanted or found
        assert all(torch.equal(x, y) for x, y in zip(found, wanted))
        st.attention(q, k, v, other)  # with the same workspace


def test_views_of_one_projection():
    x = torch.randn(2, 256, 3, 4, 64, device="cuda", dtype=torch.bfloat16)
    q, k, v = x.permute(2, 0, 3, 1, 4)
    pattern = random_pattern(256)
    o = st.attention(q, k, v, pattern)
    assert o.stride() == torch.empty_like(q).stride()
    plain = st.attention(q.contiguous(), k.contiguous(), v.contiguous(), pattern)
    assert torch.equal(o, plain)
    shifted = torch.randn(2, 4, 256, 65, device="cuda", dtype=torch.bfloat16)[..., 1:]
    assert torch.equal(  # rows that no kernel can read are copied
        st.attention(shifted, k, v, pattern), st.attention(shifted.contiguous(), k, v, pattern)
    )


@pytest.mark.parametrize("shared", [4, 2])
def test_heads_side_by_side_are_computed_as_apart(shared):
    pattern = random_pattern(256)
    qkv = torch.randn(2, 256, 4 + 2 * shared, 64, device="cuda", dtype=torch.bfloat16)
    qkv.requires_grad_()
    layer = st.BlockSparseAttention(
        pattern,
        heads=4,
        head_dim=64,
        key_value_heads=shared,
        dtype=torch.bfloat16,
        device="cuda",
    )
    three = [x.detach().requires_grad_() for x in qkv.transpose(1, 2).split((4, shared, shared), 1)]
    o = layer(*three)
    d_o = torch.randn(2, 256, 4, 64, device="cuda", dtype=torch.bfloat16)
    gradients = torch.autograd.grad(o, three, d_o.transpose(1, 2))
    wanted = torch.cat([x.transpose(1, 2) for x in gradients], 2)
    compiled = torch.compile(layer.packed, fullgraph=True)
    for packed in (layer.packed, layer.packed, compiled):
        found = packed(qkv)
        assert torch.equal(found, o.transpose(1, 2)) and found.is_contiguous()
        assert torch.equal(torch.autograd.grad(found, qkv, d_o)[0], wanted)


def test_plans_take_arrays_of_other_libraries():
    cupy = pytest.importorskip("cupy")
    q, k, v = tensors(1, 2, 256, 64, dtype=torch.float16)
    pattern = random_pattern(256)
    wanted, wanted_lse = st.attention_with_lse(q, k, v, pattern)
    plan = spion.plan(heads=2, head_dim=64, length=256, dtype="fp16", device="cuda:0")
    direct, _ = plan.forward(q, k, v, pattern)
    assert torch.equal(direct, wanted)
    torch.cuda.synchronize()
    o, lse = plan.forward(*(cupy.from_dlpack(x) for x in (q, k, v)), pattern)
    assert isinstance(o, cupy.ndarray)
    assert torch.equal(torch.from_dlpack(o), wanted)
    assert torch.equal(torch.from_dlpack(lse), wanted_lse)
    with pytest.raises(ValueError, match="k is on device 1:0"):
        plan.forward(q, k.cpu(), v, pattern)


def test_current_stream():
    side = torch.cuda.Stream()
    q, k, v = tensors(4, 8, 1024, 64)
    pattern = random_pattern(1024)
    wanted = st.attention(q, k, v, pattern)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        assert _core.current_stream(q, 0) == side.cuda_stream
        late = torch.empty_like(q)
        torch.cuda._sleep(50_000_000)  # the copy waits; attention on another stream would not
        late.copy_(q)
        o = st.attention(late, k, v, pattern)
    side.synchronize()
    assert torch.equal(o, wanted)
    assert _core.current_stream(q, 0) == torch.cuda.current_stream().cuda_stream


def test_two_streams_share_a_plan():
    q, k, v = tensors(2, 8, 1024, 64)
    patterns = [random_pattern(1024, seed) for seed in range(2)]
    wanted = [st.attention(q, k, v, pattern) for pattern in patterns]
    streams = [torch.cuda.Stream() for _ in patterns]
    torch.cuda.synchronize()
    found = [[], []]
    for _ in range(20):
        for index, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[index].append(st.attention(q, k, v, patterns[index]))
    torch.cuda.synchronize()
    for results, right in zip(found, wanted):
        assert all(torch.equal(o, right) for o in results)


def test_graph_is_replayed_with_another_pattern():
    layer = st.BlockSparseAttention(
        random_pattern(512, 1), heads=2, head_dim=64, dtype=torch.bfloat16, device="cuda"
    )
    q, k, v = tensors(2, 2, 512, 64, grad=True)
    (d_o,) = tensors(2, 2, 512, 64, count=1, seed=1)

    def step():
        return torch.autograd.grad(layer(q, k, v), (q, k, v), d_o)

    def eager(pattern):
        inputs = [x.detach().clone().requires_grad_() for x in (q, k, v)]
        return torch.autograd.grad(st.attention(*inputs, pattern), inputs, d_o)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients = step()
    for seed in (1, 2, 3):
        layer.set_pattern(random_pattern(512, seed))
        for _ in range(3):
            graph.replay()
        for given, wanted in zip(gradients, eager(random_pattern(512, seed))):
            assert torch.equal(given, wanted)


def test_compiled_with_graphs_gives_the_same_bits():
    layers = torch.nn.ModuleList(
        st.BlockSparseAttention(
            random_pattern(512, seed), heads=2, head_dim=64, dtype=torch.bfloat16, device="cuda"
        )
        for seed in range(3)
    )

    def run(q, k, v):
        for layer in layers:
            q = layer(q, k, v)
        return q

    q, k, v = tensors(2, 2, 512, 64)
    compiled = torch.compile(run, fullgraph=True, mode="reduce-overhead")
    with torch.inference_mode():
        wanted = run(q, k, v)
        for _ in range(4):
            torch.compiler.cudagraph_mark_step_begin()
            assert torch.equal(compiled(q, k, v), wanted)


def test_autocast_takes_the_16_bit_type():
    q, k, v = tensors(1, 2, 256, 64, dtype=torch.float32)
    pattern = random_pattern(256)
    for half in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", half):
            o = st.attention(q, k, v, pattern)
        assert o.dtype == half
        assert torch.equal(o, st.attention(q.to(half), k.to(half), v.to(half), pattern))


def test_opcheck():
    plan = st.plan(heads=2, head_dim=64, length=256, dtype=torch.bfloat16, device="cuda")
    tables = st.tables(random_pattern(256), plan)
    args = (*tensors(1, 2, 256, 64, grad=True), tables, None, BLOCK, 0.0, "masked")
    torch.library.opcheck(torch.ops.spion.attention, args)


def test_hugging_face():
    transformers = pytest.importorskip("transformers")
    import spion.transformers as hugging_face

    hugging_face.register()
    logits = {}
    ids = torch.randint(1, 50, (2, 100), device="cuda")
    mask = torch.ones_like(ids)
    mask[0, 60:] = 0
    for implementation in ("eager", "spion"):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            attention_probs_dropout_prob=0.0,
        )
        config._attn_implementation = implementation
        model = transformers.BertForMaskedLM(config).eval().cuda()
        with torch.no_grad():
            logits[implementation] = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(logits["spion"], logits["eager"], rtol=1e-4, atol=1e-4)
