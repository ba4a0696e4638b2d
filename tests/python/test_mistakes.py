"""What somebody new gives wrongly is refused by a sentence in their own words, and nothing is left out silently."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import spion
import spion.torch as st

B, H, L, D = 2, 4, 128, 32
PATTERN = spion.Pattern.full(L, block=64)
SLOPES = torch.ones(H)


def tensors(**kind):
    return [torch.randn(B, H, L, D).to(**kind) for _ in range(3)]


def refuses(sentence, run, *given, **more):
    with pytest.raises(spion.UserError, match=sentence):
        run(*given, **more)


Q, K, V = tensors()
ROWS = [x[0].transpose(0, 1) for x in (Q, K, V)]
STARTS = torch.tensor([0, L], dtype=torch.int32)
FUNCTIONS = {
    "attention": (st.attention, (Q, K, V)),
    "packed": (st.packed_attention, (torch.randn(B, L, 3, H, D),)),
    "varlen": (lambda *x, **more: st.varlen_attention(*x, STARTS, **more), ROWS),
    "module": (lambda *x, **more: st.BlockSparseAttention(x[-1], heads=H, head_dim=D, **more), ()),
}
GIVEN = [
    (r"the pattern is a Tensor: give a spion.Pattern", torch.ones(2, 2), {}),
    (r"score is a function: give an expression as a text", PATTERN, {"score": lambda s, *_: s}),
    (r"score is a NoneType: give an expression", PATTERN, {"score": None}),
    (r"score_derivative is a int", PATTERN, {"score": "score", "score_derivative": 1}),
    (r"scale requires a gradient, .*: detach it", PATTERN, {"scale": torch.ones((), requires_grad=True)}),
]


@pytest.mark.parametrize("sentence, pattern, words", GIVEN)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_words(name, sentence, pattern, words):
    run, operands = FUNCTIONS[name]
    refuses(sentence, run, *operands, pattern, **words)


def test_a_gradient_of_slopes_is_not_left_out():
    slopes = SLOPES.clone().requires_grad_()
    for name in ("attention", "varlen", "module"):
        run, operands = FUNCTIONS[name]
        refuses("alibi_slopes requires a gradient", run, *operands, PATTERN, alibi_slopes=slopes)
    plan = st.plan(heads=H, head_dim=D, length=L, alibi=True)
    q = Q.clone().requires_grad_()
    words = st.tables(PATTERN, plan), None, 64, 0.0, "masked", False, None, 0.0, 0.0, 1, None
    general = torch.ops.spion.general_attention
    refuses("alibi_slopes requires a gradient", general, q, K, V, *words, slopes, None)
    assert general(q, K, V, *words, SLOPES, None)[0].requires_grad


def test_wrong_tensors():
    refuses("q is a ndarray: give a tensor of PyTorch", st.attention, Q.numpy(), K, V, PATTERN)
    refuses("q is on cpu and k on meta", st.attention, Q, K.to("meta"), V, PATTERN)
    refuses("lengths is a list: give a tensor", st.attention, Q, K, V, PATTERN, lengths=[L, L])
    refuses("q is on cpu and sinks on meta", st.attention, Q, K, V, PATTERN, sinks=SLOPES.to("meta"))
    refuses("tensors are on meta", st.attention, *(x.to("meta") for x in (Q, K, V)), PATTERN)
    refuses("fp32 only, and bf16 was asked for", st.attention, *tensors(dtype=torch.bfloat16), PATTERN)
    refuses("k is of float64", st.attention, Q, K.double(), V, PATTERN)
    turned = [x.transpose(1, 2) for x in (Q, K, V)]
    refuses("the pattern is for length 128 .*, the plan for length 4", st.attention, *turned, PATTERN)
    refuses("cu_seqlens is a list", st.varlen_attention, *ROWS, PATTERN, [0, L])
    refuses("cu_seqlens is of int64", st.varlen_attention, *ROWS, PATTERN, STARTS.long())
    refuses("qkv is a ndarray", st.packed_attention, np.ones((B, L, 3, H, D), np.float32), PATTERN)
    with pytest.raises(NotImplementedError, match="SparseCPU"):
        st.attention(Q.to_sparse(), K, V, PATTERN)


def test_a_module_of_other_heads():
    layer = st.BlockSparseAttention(PATTERN, heads=2, head_dim=D)
    for _ in range(2):
        refuses("tables were written for another plan, of other heads, dimensions", layer, Q, K, V)


@pytest.mark.parametrize(
    "module, sentence",
    [
        ("None", "takes PyTorch 2.10 or later, and there is none: pip install 'torch>=2.10'"),
        (
            "types.ModuleType('torch'); torch.__version__ = '2.9.1+cpu'",
            "takes PyTorch 2.10 or later, and this is 2.9.1+cpu: pip install 'torch>=2.10'",
        ),
    ],
)
def test_pytorch_that_is_missing_or_too_old(module, sentence):
    code = f"import sys, types; torch = {module}; sys.modules['torch'] = torch; import spion"
    code += "; print(spion.__version__); import spion.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == spion.__version__ and done.returncode == 1
    assert f"ImportError: spion.torch {sentence}" in done.stderr, done.stderr


def test_transformers_that_is_too_old(monkeypatch):
    transformers = pytest.importorskip("transformers")
    import spion.transformers

    monkeypatch.setattr(transformers, "__version__", "4.57.1")
    refuses("takes transformers 5.0 or later, and this is 4.57.1", spion.transformers.register)


def test_help_says_what_there_is():
    import pydoc

    text = pydoc.render_doc(st, renderer=pydoc.plaintext)
    for name in st.__all__:
        assert name in text and getattr(st, name).__doc__, name
    for word in ("score:", "dropout:", "relative_bias:", "spans:", "lengths:", "causal:"):
        assert word in st.attention.__doc__
