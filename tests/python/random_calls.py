"""Random calls of spion.torch on the host, whatever its options may be together, against float64: the
functions and the module, packed heads and sequences end to end, gradients, compiled graphs, autocast,
strides. The reference is written from docs/ir.md, and shares nothing with spion.

    random_calls.py [--count N] [--seed S]      PYTHONPATH as for the tests; a failure names its own seed
"""

import argparse
import dataclasses
import random
import secrets
import sys
import traceback

import numpy as np
import reference
import torch
from oracle import close

import spion
import spion.torch as st

# The text, and the same of (scores, sample, head, query, key).
EXPRESSIONS = {
    "2*tanh(score/2)": lambda s, b, h, q, k: 2 * torch.tanh(s / 2),
    "score-0.1*log(1+fabs(q-k))": lambda s, b, h, q, k: s - 0.1 * torch.log(1 + (q - k).abs()),
    "score*(1+head)/3-0.02*batch*k": lambda s, b, h, q, k: s * (1 + h) / 3 - 0.02 * b * k,
    "q < 40 ? min(score, 0.5) : 0.5*score": lambda s, b, h, q, k: torch.where(
        q < 40, s.clamp(max=0.5), 0.5 * s
    ),
}
WAYS = ("function", "module", "packed", "packed module", "sequences", "module of sequences")


@dataclasses.dataclass
class Call:
    """What a call is, but for its numbers."""

    way: str
    block: int
    batch: int
    heads: int
    shared: int
    width: int
    values: int
    length: int
    keys: int
    patterns: int = 1
    density: float = 0.6
    softmax: str = "masked"
    scale: float = 0.0
    causal: bool = False
    padded: bool = False  # keys, by lengths
    rules: dict | None = None  # of spans
    softcap: float = 0.0
    score: str = ""
    slopes: bool = False
    sinks: bool = False
    reach: int = 0
    dropout: float = 0.0
    autocast: bool = False
    layout: str = "plain"
    gradient: str = "plain"
    learns: tuple = ("q", "k", "v")
    own_keys: bool = False  # sequences of keys are others than those of queries
    own_patterns: bool = False  # each sequence has its own
    replaced: str = ""  # the module is made with another pattern first

    @property
    def is_module(self):
        return "module" in self.way

    @property
    def is_packed(self):
        return "packed" in self.way

    @property
    def is_varlen(self):
        return "sequences" in self.way


def rules_of(draw, call):
    """A random conjunction for spion.spans."""
    rules = {}
    if draw.random() < 0.5:
        rules["causal"] = True
    if draw.random() < 0.6:
        rules["left"] = draw.randrange(call.length)
    if draw.random() < 0.4:
        rules["right"] = draw.randrange(call.length)
    if call.is_varlen:
        return rules
    if draw.random() < 0.4:
        numbers = np.random.default_rng(draw.getrandbits(32))
        sizes = {"documents": call.length}
        if call.keys != call.length:
            sizes["key_documents"] = call.keys
        for name, size in sizes.items():
            rules[name] = np.sort(numbers.integers(0, 4, (call.batch, size)), axis=1)
    if rules.get("causal") and draw.random() < 0.4 and call.keys == call.length:
        rules["prefixes"] = [draw.randrange(call.length) for _ in range(call.batch)]
    if draw.random() < 0.3:
        rules["query_lengths"] = [draw.randrange(call.length + 1) for _ in range(call.batch)]
    return rules


def call_of(draw):
    """One that is allowed."""
    shared = draw.choice((1, 2, 3))
    width = draw.choice((16, 16, 24, 32, 40, 64, 72))
    length = draw.randrange(1, 150)
    call = Call(
        way=draw.choice(WAYS),
        block=draw.choice((16, 32, 32, 64, 128)),
        batch=draw.randrange(1, 4),
        heads=shared * draw.choice((1, 2)),
        shared=shared,
        width=width,
        values=width,
        length=length,
        keys=length,
        density=draw.choice((0.0, 0.4, 0.7, 1.0)),
        softmax=draw.choice(("masked", "masked", "pruned_zero")),
        scale=draw.choice((0.0, 0.0, 0.37)),
        autocast=draw.random() < 0.15,
        layout=draw.choice(("plain", "plain", "turned", "wide", "odd")),
        gradient=draw.choice(("plain", "turned", "expanded")),
    )
    if not call.is_packed:
        call.values = draw.choice((width, width, 16, 48))
        if not call.is_varlen and draw.random() < 0.4:
            call.keys = draw.randrange(1, 150)
    if call.is_varlen and draw.random() < 0.4:
        call.own_keys, call.keys = True, draw.randrange(1, 150)
    call.own_patterns = call.way == "sequences" and draw.random() < 0.4
    mask = draw.choice(("none", "causal", "spans"))
    call.causal = mask == "causal"
    call.rules = rules_of(draw, call) if mask == "spans" else None
    call.padded = not call.is_varlen and draw.random() < 0.4
    if call.way != "packed":
        draw_changes(draw, call)
    if draw.random() < 0.3:
        call.softcap, call.score = 0.0, draw.choice(list(EXPRESSIONS))
    learnt = ["q", "k", "v"]
    learnt += [name for name, some in (("sinks", call.sinks), ("bias", call.reach)) if some]
    if draw.random() < 0.3:
        learnt = [name for name in learnt if draw.random() < 0.5] or ["v"]
    if call.is_packed:
        learnt = ["q", "k", "v", *(name for name in learnt if name not in "qkv")]
    call.learns = tuple(learnt)
    if call.is_module:
        call.replaced = draw.choice(("", "set", "load"))
    return call


def draw_changes(draw, call):
    """What takes the general operator."""
    if draw.random() < 0.3:
        call.patterns = draw.choice((call.shared, call.heads))
    if draw.random() < 0.3:
        call.softcap = 1.5
    call.slopes, call.sinks = draw.random() < 0.25, draw.random() < 0.3
    if draw.random() < 0.3:
        call.reach = draw.choice((1, 7, 200))
    if draw.random() < 0.3:
        call.dropout = draw.choice((0.1, 0.5))


class Numbers:
    """The tensors of a call. Of sequences q is [T, H, D], else [B, H, L, D]."""

    def __init__(self, call, seed):
        self.call, self.rng = call, np.random.default_rng(seed)
        if call.is_varlen:
            self.starts = self._starts(call.length)
            self.key_starts = self._starts(call.keys) if call.own_keys else self.starts
            rows, key_rows = int(self.starts[-1]), int(self.key_starts[-1])
            shapes = {
                "q": (rows, call.heads, call.width),
                "k": (key_rows, call.shared, call.width),
                "v": (key_rows, call.shared, call.values),
                "d_o": (rows, call.heads, call.values),
            }
        else:
            shapes = {
                "q": (call.batch, call.heads, call.length, call.width),
                "k": (call.batch, call.shared, call.keys, call.width),
                "v": (call.batch, call.shared, call.keys, call.values),
                "d_o": (call.batch, call.heads, call.length, call.values),
            }
        half = torch.bfloat16 if call.autocast else torch.float32
        self.given = {name: self._normal(*shape).to(half) for name, shape in shapes.items()}
        self.given["d_o"] = self.given["d_o"].float()  # of o, which is computed in float32
        if call.gradient == "expanded":
            self.given["d_o"] = self.given["d_o"].flatten()[:1].expand(self.given["d_o"].shape) \
                if self.given["d_o"].numel() else self.given["d_o"]
        self.sinks = self._normal(call.heads) if call.sinks else None
        self.bias = self._normal(call.heads, 2 * call.reach + 1) if call.reach else None
        self.slopes = self._normal(call.heads).abs() / 16 if call.slopes else None
        self.lengths = None
        if call.padded:
            counts = self.rng.integers(0, call.keys + 1, call.batch)
            self.lengths = torch.from_numpy(counts.astype(np.int32))
        count = call.batch if call.own_patterns else 1
        rows, columns = -(-call.length // call.block), -(-call.keys // call.block)
        self.bits = self.rng.random((count, call.patterns, rows, columns)) < call.density
        self.state = None

    def _normal(self, *shape):
        return torch.from_numpy(self.rng.standard_normal(shape).astype(np.float32))

    def _starts(self, longest):
        lengths = self.rng.integers(0, longest + 1, self.call.batch)
        lengths[0] = longest  # so that there is some work
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

    def pattern(self, index=0):
        bits, call = self.bits[index], self.call
        return spion.Pattern.from_bits(
            bits[0] if call.patterns == 1 else bits, call.length, block=call.block,
            key_length=call.keys,
        )


def kept_by(call, b, length, keys):
    """[length, keys]: whether query i of sample b keeps key j, by its masks."""
    i = torch.arange(length)[:, None] + keys - length
    j = torch.arange(keys)[None]
    kept = torch.ones(length, keys, dtype=torch.bool)
    rules = call.rules or {}
    if call.causal or rules.get("causal"):
        kept &= (j <= i) | (j < rules.get("prefixes", [0] * call.batch)[b])
    if rules.get("left") is not None:
        kept &= j >= i - rules["left"]
    if rules.get("right") is not None:
        kept &= j <= i + rules["right"]
    if rules.get("documents") is not None:
        ids = rules["documents"][b]
        kept &= torch.from_numpy(ids[:, None] == rules.get("key_documents", rules["documents"])[b][None])
    if rules.get("query_lengths") is not None:
        kept &= torch.arange(length)[:, None] < rules["query_lengths"][b]
    return kept


def of_one(call, numbers, b, q, k, v, sinks, bias, factors):
    """o [H, l, Dv] and lse [H, l] of sample or sequence b in float64: q [H, l, D], k and v [Hkv, ...]."""
    (heads, length, width), keys = q.shape, k.shape[1]
    k, v = (x.repeat_interleave(heads // call.shared, 0) for x in (k, v))
    s = q @ k.mT * (call.scale or width**-0.5)
    i, j, h = torch.arange(length)[:, None], torch.arange(keys), torch.arange(heads)[:, None, None]
    if call.softcap:
        s = call.softcap * torch.tanh(s / call.softcap)
    if call.score:
        s = EXPRESSIONS[call.score](s, torch.tensor(b), h, i, j)
    distance = j - (i + keys - length)
    if numbers.slopes is not None:
        s = s - numbers.slopes.double()[:, None, None] * distance.abs()
    if bias is not None:
        s = s + bias[:, call.reach + distance.clamp(-call.reach, call.reach)]
    bits = numbers.bits[b if call.own_patterns else 0]
    inside = np.kron(bits, np.ones((1, call.block, call.block)))[:, :length, :keys] > 0
    inside = torch.from_numpy(inside).repeat_interleave(heads // call.patterns, 0)
    allowed = kept_by(call, b, length, keys)
    kept = inside & allowed
    if numbers.lengths is not None:
        kept = kept & (j < numbers.lengths[b])
    weights = torch.where(kept, s, -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if call.softmax == "pruned_zero":
        total = total + (allowed & ~inside).sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.exp()[:, None, None]
    p = weights / torch.where(total == 0, 1, total)
    if factors is not None:
        p = p * factors
    return p @ v, total.log()[..., 0]


def wanted(call, numbers):
    """o, lse and the gradients of what is learnt, as the call gives them."""
    leaves = {name: numbers.given[name].double().requires_grad_() for name in "qkv"}
    for name in ("sinks", "bias"):
        x = getattr(numbers, name)
        leaves[name] = None if x is None else x.double().requires_grad_()
    factors = None
    if call.dropout:
        seed, word = (int(x) for x in numbers.state.numpy().view(np.uint64))
        factors = reference.kept_factors(
            call.dropout, seed, word & 0xFFFFFFFF, call.batch, call.heads, call.length, call.keys
        )
    results = []
    for b in range(call.batch):
        if call.is_varlen:
            own, others = (slice(*x[b : b + 2]) for x in (numbers.starts, numbers.key_starts))
            parts = [leaves["q"][own], leaves["k"][others], leaves["v"][others]]
            parts = [x.transpose(0, 1) for x in parts]
        else:
            parts = [leaves[name][b] for name in "qkv"]
        (_, length, _), keys = parts[0].shape, parts[1].shape[1]
        drawn = None if factors is None else factors[b, :, :length, :keys]
        results.append(of_one(call, numbers, b, *parts, leaves["sinks"], leaves["bias"], drawn))
    if call.is_varlen:
        o = torch.cat([x.transpose(0, 1) for x, _ in results])
        lse = torch.full((call.batch, call.heads, call.length), -torch.inf, dtype=torch.float64)
        for b, (_, one) in enumerate(results):
            lse[b, :, : one.shape[1]] = one.detach()
    else:
        o, lse = (torch.stack(x) for x in zip(*results))
    learnt = [leaves[name] for name in call.learns]
    gradients = torch.autograd.grad(o, learnt, numbers.given["d_o"].double(), allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(learnt, gradients)]
    return o.detach(), lse.detach(), gradients


def laid_out(x, layout):
    """The same numbers in other places."""
    if layout == "turned":
        return x.transpose(-3, -2).contiguous().transpose(-3, -2)
    if layout == "wide":
        return torch.cat([x, x], -1)[..., : x.shape[-1]]
    if layout == "odd":
        return x.mT.contiguous().mT
    return x


def options_of(call, numbers, leaves):
    """What functions are told beside q, k, v, the pattern and cu_seqlens."""
    options = {
        "softmax": call.softmax, "scale": call.scale, "causal": call.causal, "score": call.score,
    }
    if not call.is_varlen:
        options["lengths"] = numbers.lengths
    options["spans"] = spans_of(call, numbers)
    if call.way != "packed":
        options.update(
            softcap=call.softcap, dropout=call.dropout, alibi_slopes=numbers.slopes,
            sinks=leaves["sinks"], relative_bias=leaves["bias"],
        )
    return options


def spans_of(call, numbers):
    if call.rules is None:
        return None
    rules = dict(call.rules)
    if call.is_varlen:
        rules["cu_seqlens"] = numbers.starts
    if call.own_keys:
        rules["key_cu_seqlens"] = numbers.key_starts
    if call.keys != call.length or call.own_keys:
        rules["key_length"] = call.keys
    return st.spans(call.batch, call.length, **rules)


def side_by_side(leaves):
    return torch.cat([leaves[name].transpose(1, 2) for name in "qkv"], 2)


def by_function(call, numbers, leaves):
    """o and lse, where the function gives it."""
    q, k, v = (laid_out(leaves[name], call.layout) for name in "qkv")
    options = options_of(call, numbers, leaves)
    if call.way == "packed":
        qkv = laid_out(side_by_side(leaves), call.layout)
        o = st.packed_attention(qkv, numbers.pattern(), key_value_heads=call.shared, **options)
        return o.transpose(1, 2), None
    if call.way == "function":
        return st.attention_with_lse(q, k, v, numbers.pattern(), **options)
    pattern = numbers.pattern()
    if call.own_patterns:
        pattern = [numbers.pattern(b) for b in range(call.batch)]
    if call.own_keys:
        options["key_cu_seqlens"] = torch.from_numpy(numbers.key_starts)
    return st.varlen_attention(q, k, v, pattern, torch.from_numpy(numbers.starts), **options), None


class Step(torch.nn.Module):
    """A module's call, of leaves as they are."""

    def __init__(self, call, numbers):
        super().__init__()
        self.call, self.numbers = call, numbers
        pattern = numbers.pattern()
        self.attention = self._made(pattern)
        if call.replaced == "set":
            self.attention = self._made(self._other(pattern))
            self.attention.set_pattern(pattern)
        elif call.replaced == "load":
            other = self._made(self._other(pattern))
            other.load_state_dict(self.attention.state_dict())
            self.attention = other
        assert self.attention.pattern == pattern
        with torch.no_grad():
            for name, x in (("sinks", numbers.sinks), ("relative_bias", numbers.bias)):
                if x is not None:
                    getattr(self.attention, name).copy_(x)

    def _other(self, pattern):
        full = spion.Pattern.full(pattern.length, block=pattern.block, key_length=pattern.key_length)
        return full if pattern.patterns == 1 else spion.Pattern.from_heads([full] * pattern.patterns)

    def _made(self, pattern):
        call = self.call
        return st.BlockSparseAttention(
            pattern, heads=call.heads, head_dim=call.width, key_value_heads=call.shared,
            value_dim=call.values, softmax=call.softmax, scale=call.scale, causal=call.causal,
            key_padding=call.padded, spans=call.rules is not None and not call.is_varlen,
            softcap=call.softcap, score=call.score, dropout=call.dropout,
            alibi_slopes=self.numbers.slopes, sinks=call.sinks, relative_bias=call.reach,
            varlen=call.is_varlen, key_starts=call.own_keys,
        )

    def forward(self, q, k, v, lengths, spans, starts, key_starts):
        call = self.call
        if call.is_packed:
            qkv = laid_out(side_by_side({"q": q, "k": k, "v": v}), call.layout)
            return self.attention.packed(qkv, lengths, spans).transpose(1, 2)
        q, k, v = (laid_out(x, call.layout) for x in (q, k, v))
        if call.is_varlen:
            return self.attention(q, k, v, spans=spans, cu_seqlens=starts, key_cu_seqlens=key_starts)
        return self.attention(q, k, v, lengths, spans)


def by_module(call, numbers, leaves):
    """o, the same by a compiled graph, and the parameters in the leaves' places."""
    step = Step(call, numbers)
    starts = torch.from_numpy(numbers.starts) if call.is_varlen else None
    key_starts = torch.from_numpy(numbers.key_starts) if call.own_keys else None
    spans = spans_of(call, numbers)
    if call.is_varlen and spans is None:  # which a compiled graph cannot make
        spans = st.spans(
            call.batch, call.length, causal=call.causal, cu_seqlens=numbers.starts,
            **({"key_cu_seqlens": numbers.key_starts, "key_length": call.keys} if call.own_keys else {}),
        )
    given = (*(leaves[name] for name in "qkv"), numbers.lengths, spans, starts, key_starts)
    leaves["sinks"], leaves["bias"] = step.attention.sinks, step.attention.relative_bias
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    made = []
    for run in (step, compiled):
        torch.manual_seed(11)
        made.append(run(*given))
    return made


def check(call, seed):
    numbers = Numbers(call, seed)
    leaves = {name: numbers.given[name].clone().requires_grad_(name in call.learns) for name in "qkv"}
    for name in ("sinks", "bias"):
        x = getattr(numbers, name)
        leaves[name] = None if x is None else x.clone().requires_grad_(name in call.learns)
    torch.manual_seed(11)
    numbers.state = st.dropout_state("cpu") if call.dropout else None
    lse = None
    with torch.autocast("cpu", torch.bfloat16, enabled=call.autocast):
        torch.manual_seed(11)
        if call.is_module:
            outputs = by_module(call, numbers, leaves)
        else:
            o, lse = by_function(call, numbers, leaves)
            outputs = [o]
        with torch.no_grad():
            torch.manual_seed(11)
            again = by_function(call, numbers, leaves)[0] if not call.is_module else None
    right_o, right_lse, gradients = wanted(call, numbers)
    d_o = numbers.given["d_o"]
    if call.gradient == "turned":
        d_o = laid_out(d_o, "turned")
    learnt = [leaves[name] for name in call.learns]
    first = None
    for o in outputs:
        made = torch.autograd.grad(o, learnt, d_o)
        assert o.dtype == torch.float32
        close(o.detach(), right_o, 3e-5)
        for name, one, right in zip(call.learns, made, gradients, strict=True):
            rounded = call.autocast and name in "qkv"
            close(one.float(), right, 8e-3 if rounded else 1e-4)
        if first is not None:
            assert torch.equal(o, first[0]), "the compiled graph gives other bits"
            for name, one, eager in zip(call.learns, made, first[1]):
                assert torch.equal(one, eager), f"the compiled graph gives other bits of d_{name}"
        first = o, made
    if lse is not None:
        close(lse.detach(), right_lse, 3e-5)
    if again is not None:
        assert torch.equal(again, outputs[0]), "without gradients bits are others"


def run(seed, count):
    """How many of `count` calls from `seed` on are wrong; each is said."""
    wrong = 0
    for one in range(seed, seed + count):
        call = call_of(random.Random(one))
        try:
            check(call, one)
        except Exception:
            wrong += 1
            traceback.print_exc()
            print(f"WRONG: random_calls.py --seed {one} --count 1: {call}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=secrets.randbits(40))
    args = parser.parse_args()
    print(f"random_calls.py --seed {args.seed} --count {args.count}", flush=True)
    wrong = run(args.seed, args.count)
    print(f"{args.count - wrong} of {args.count} calls are right")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
