"""The package with NumPy on the host: numbers against float64, and what the door refuses."""

import pickle
import threading

import numpy as np
import pytest
from oracle import attention, attention_gradients, close

import spion

BLOCK = 32


def arrays(*shape, seed=0, count=4):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape, np.float32) for _ in range(count)]


def random_pattern(length, block=BLOCK, density=0.4, seed=0):
    rows = -(-length // block)
    bits = np.random.default_rng(seed).random((rows, rows)) < density
    bits[0] = False  # a row of blocks that attends to nothing
    return spion.Pattern.from_bits(bits, length, block=block)


@pytest.mark.parametrize("softmax", ["masked", "pruned_zero"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [128, 150])
def test_equals_float64(softmax, padded, length):
    q, k, v, d_o = arrays(3, 2, length, 16, seed=length)
    pattern = random_pattern(length)
    lengths = np.array([length, 0, 77], np.int32) if padded else None
    plan = spion.plan(
        heads=2, head_dim=16, length=length, block=BLOCK, softmax=softmax, key_padding=padded
    )
    o, lse = plan.forward(q, k, v, pattern, lengths=lengths)
    gradients = plan.backward(d_o, q, k, v, o, lse, pattern, lengths=lengths)
    case = (q, k, v, pattern.bits(), BLOCK, softmax, lengths)
    wanted_o, wanted_lse = attention(*case)
    assert type(o) is np.ndarray and o.dtype == np.float32
    close(o, wanted_o)
    close(lse, wanted_lse)
    for given, wanted in zip(gradients, attention_gradients(d_o, *case)):
        close(given, wanted)


def test_views_give_the_same_bits():
    q, k, v = arrays(2, 96, 2, 3 * 16, count=3)  # [B, L, H, 3 D]
    views = [x.swapaxes(1, 2)[..., 16:32] for x in (q, k, v)]
    pattern = random_pattern(96)
    plan = spion.plan(heads=2, head_dim=16, length=96, block=BLOCK)
    out = np.full((2, 2, 96, 16), np.nan, np.float32)
    o, lse = plan.forward(*views, pattern, out=out)
    assert o is out
    o2, lse2 = plan.forward(*(np.ascontiguousarray(x) for x in views), pattern)
    assert np.array_equal(o, o2) and np.array_equal(lse, lse2)


def test_one_head_for_all_by_a_stride_of_zero():
    q, k, v = arrays(1, 1, 64, 16, count=3)
    plan = spion.plan(heads=3, head_dim=16, length=64, block=BLOCK)
    pattern = spion.Pattern.full(64, block=BLOCK)
    wide = [np.broadcast_to(x, (2, 3, 64, 16)) for x in (q, k, v)]  # read-only, which inputs may be
    o, _ = plan.forward(*wide, pattern)
    close(o[1, 2], attention(q, k, v, pattern.bits(), BLOCK, "masked", None)[0][0, 0])


def test_threads_share_a_plan():
    q, k, v = arrays(2, 2, 128, 16, count=3)
    plan = spion.plan(heads=2, head_dim=16, length=128, block=BLOCK)
    patterns = [random_pattern(128, seed=seed) for seed in range(4)]
    wanted = [plan.forward(q, k, v, pattern)[0] for pattern in patterns]
    found = [None] * len(patterns)

    def work(index):
        for _ in range(5):
            found[index] = plan.forward(q, k, v, patterns[index])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(patterns))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted))


def unaligned(x):
    raw = np.zeros(x.nbytes + 4, np.uint8)[1 : 1 + x.nbytes]
    return raw.view(np.float32).reshape(x.shape)


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize(
    "argument, change, sentence",
    [
        ("q", lambda x: x.astype(np.float64), "q is of float64"),
        ("k", lambda x: x.astype(np.complex64), "k is of complex64"),
        ("v", lambda x: x[0], "v has rank 3"),
        ("q", lambda x: x[:, :, :-1], "q has rank 4 and shape"),
        ("q", lambda x: x[..., ::-1], "q has a stride of -1 elements along D"),
        ("k", lambda x: x[:, :, ::-1], "k has a row stride of -16 elements"),
        ("v", unaligned, "v is at"),
        ("q", lambda x: x.astype(x.dtype.newbyteorder()), "q is in the other byte order"),
        ("k", lambda x: x.tolist(), "k is a list"),
        ("out", read_only, "o is read-only"),
        ("out", lambda x: np.broadcast_to(x[:1], x.shape), "read-only|batch stride of 0"),
        ("out", lambda x: x.astype(np.float16), "o is of dtype"),
    ],
)
def test_the_door_refuses_in_one_sentence(argument, change, sentence):
    q, k, v, out = arrays(2, 2, 64, 16)
    given = {"q": q, "k": k, "v": v, "out": out}
    given[argument] = change(given[argument])
    plan = spion.plan(heads=2, head_dim=16, length=64, block=BLOCK)
    with pytest.raises(ValueError, match=sentence) as caught:
        plan.forward(given["q"], given["k"], given["v"], random_pattern(64), out=given["out"])
    assert isinstance(caught.value, spion.UserError) and "\n" not in str(caught.value)


def test_the_door_refuses_an_output_with_a_stride_of_zero():
    q, k, v = arrays(2, 2, 64, 16, count=3)
    out = np.lib.stride_tricks.as_strided(
        np.zeros((2, 64, 16), np.float32), (2, 2, 64, 16), (0, 4096, 64, 4), writeable=True
    )
    plan = spion.plan(heads=2, head_dim=16, length=64, block=BLOCK)
    with pytest.raises(ValueError, match="o has a batch stride of 0"):
        plan.forward(q, k, v, random_pattern(64), out=out)


def test_lengths_and_lse_are_counted():
    q, k, v, d_o = arrays(2, 2, 64, 16)
    plan = spion.plan(heads=2, head_dim=16, length=64, block=BLOCK, key_padding=True)
    pattern = random_pattern(64)
    with pytest.raises(ValueError, match="lengths are null"):
        plan.forward(q, k, v, pattern)
    with pytest.raises(ValueError, match="lengths is of int64"):
        plan.forward(q, k, v, pattern, lengths=np.array([1, 2]))
    with pytest.raises(ValueError, match="lengths has 3 numbers, and batch is 2"):
        plan.forward(q, k, v, pattern, lengths=np.zeros(3, np.int32))
    with pytest.raises(ValueError, match=r"lengths\[1\] is 65"):
        plan.forward(q, k, v, pattern, lengths=np.array([1, 65], np.int32))
    lengths = np.array([64, 64], np.int32)
    o, lse = plan.forward(q, k, v, pattern, lengths=lengths)
    with pytest.raises(ValueError, match="lse has 128 numbers"):
        plan.backward(d_o, q, k, v, o, lse[:1], pattern, lengths=lengths)


def test_kinds_of_errors():
    with pytest.raises(ValueError, match="head dimension 17"):
        spion.plan(heads=2, head_dim=17, length=64)
    with pytest.raises(ValueError, match="dtype is 'fp64'"):
        spion.plan(heads=2, head_dim=16, length=64, dtype="fp64")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        spion.plan(heads=2, head_dim=16, length=64, device="tpu")
    with pytest.raises(RuntimeError, match="bundle") as caught:
        spion.Context("cpu", bundle="/nowhere/at/all")
    assert isinstance(caught.value, spion.DeviceError)
    frozen = spion.Context("cpu", cache="", frozen=True)
    with pytest.raises(spion.Frozen):
        spion.plan(heads=1, head_dim=16, length=64, context=frozen)


def test_a_new_pattern_compiles_nothing():
    q, k, v = arrays(1, 2, 128, 16, count=3)
    plan = spion.plan(heads=2, head_dim=16, length=128, block=BLOCK)
    before = spion.compiles()
    with spion.frozen():
        for seed in range(3):
            plan.forward(q, k, v, random_pattern(128, seed=seed))
    assert spion.compiles() == before


def test_patterns_and_back():
    bits = random_pattern(150).bits()
    pattern = spion.Pattern.from_bits(bits, 150, block=BLOCK)
    dense = np.kron(bits, np.ones((BLOCK, BLOCK), np.uint8))[:150, :150]
    columns = [np.flatnonzero(row) for row in bits]
    offsets = np.cumsum([0] + [len(row) for row in columns])
    assert spion.Pattern.from_dense(dense, block=BLOCK) == pattern
    assert spion.Pattern.from_text(pattern.text, 150, block=BLOCK) == pattern
    assert spion.Pattern.from_csr(offsets, np.concatenate(columns), 150, block=BLOCK) == pattern
    assert spion.Pattern.from_layout(np.stack([bits, bits]), 150, block=BLOCK) == pattern
    assert pickle.loads(pickle.dumps(pattern)) == pattern
    assert pattern.transpose() != pattern and pattern.transpose().transpose() == pattern
    assert pattern.density == pytest.approx(dense.mean())
    assert hash(pattern) == hash(spion.Pattern.from_bits(bits, 150, block=BLOCK))
    assert len(pattern.to_art().splitlines()) == 3
    with pytest.raises(ValueError, match="block"):
        spion.Pattern.full(64, block=17)
    apart = spion.Pattern.from_layout(np.stack([bits, 1 - bits]), 150, block=BLOCK)
    assert apart.patterns == 2 and apart.head(0) == pattern != apart.head(1)
    with pytest.raises(ValueError, match="samples of the base_blockmask differ"):
        spion.Pattern.from_layout(np.stack([bits, 1 - bits])[:, None], 150, block=BLOCK)


def test_discovery_finds_a_diagonal():
    length = 256
    scores = np.full((length, length), 1e-4, np.float32)
    np.fill_diagonal(scores, 1.0)
    pattern = spion.discover(scores, block=32, quantile=0.8)
    assert np.diagonal(pattern.bits()).all() and pattern.density < 0.5
    with pytest.raises(ValueError, match="variant is 'x'"):
        spion.discover(scores, variant="x")


def test_stages_of_the_compiler():
    attention = spion.Attention(heads=2, head_dim=64, length=256)
    assert "attention" in spion.emit(attention, "sm_90a", stage="attention")
    assert "#include" in spion.emit(attention, "sm_90a")
    assert "forward" in spion.explain(attention, "sm_80")
    with pytest.raises(ValueError, match="stage is 'soup'"):
        spion.emit(attention, "sm_80", stage="soup")


def test_a_bundle_serves_without_a_compiler(tmp_path):
    attention = spion.Attention(heads=2, head_dim=16, length=64, block=32, dtype="fp32")
    spion.precompile([attention], targets=["host"], bundle=tmp_path / "bundle")
    assert "attention_forward" in spion.check_bundle(tmp_path / "bundle")
    context = spion.Context("cpu", cache="", bundle=tmp_path / "bundle", frozen=True)
    plan = spion.plan(heads=2, head_dim=16, length=64, block=32, context=context)
    q, k, v = arrays(1, 2, 64, 16, count=3)
    pattern = random_pattern(64)
    o, _ = plan.forward(q, k, v, pattern)
    assert plan.origin == "bundle" and context.compiles == 0
    close(o, attention_of(q, k, v, pattern))


def attention_of(q, k, v, pattern):
    return attention(q, k, v, pattern.bits(), pattern.block, "masked", None)[0]


def test_doctor_says_what_is_here():
    lines = spion.doctor().splitlines()
    assert lines[0].startswith("spion ") and lines[1].startswith("cpu: ")


def test_the_stub_names_what_the_module_has():
    import pathlib

    from spion import _core

    stub = pathlib.Path(spion.__file__).with_name("_core.pyi").read_text()
    for name, member in vars(_core).items():
        if not name.startswith("_"):
            written = f"class {name}", f"def {name}(", f"\n{name}: "
            assert any(text in stub for text in written), name
            for inner in vars(member) if isinstance(member, type) else ():
                assert inner.startswith("_") or f"def {inner}(" in stub, f"{name}.{inner}"
