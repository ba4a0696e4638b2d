"""Random calls of spion.torch, whatever its options may be together, against float64: the functions and the
module, packed heads and sequences end to end, gradients, compiled graphs, autocast, strides. The reference is
written from docs/ir.md, and shares nothing with spion.

    random_calls.py [--count N] [--seconds S] [--seed S] [--device cpu|cuda] [--dtype fp32|bf16|fp16]

PYTHONPATH as for the tests; a failure names its own seed. On a GPU a call may be refused by a sentence, which
is counted and said; the host computes every one.
"""

import argparse
import collections
import random
import secrets
import sys
import time
import traceback

import numpy as np
import reference
import torch
from oracle import close
from random_case import EXPRESSIONS, Numbers, call_of

import spion
import spion.torch as st

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Of o and lse; of gradients.
TOLERANCES = {
    torch.float32: (3e-5, 1e-4),
    torch.bfloat16: (2e-2, 3e-2),
    torch.float16: (4e-3, 8e-3),
}


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
    """o [H, l, Dv] and lse [H, l] of sample or sequence b in float64: q [H, l, D], k and v [Hkv, ...], sinks
    [H, l] and bias [H, l, 2R + 1], of each row."""
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
        entries = call.reach + distance.clamp(-call.reach, call.reach)
        s = s + bias.gather(2, entries.expand(heads, length, keys))
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
        total = total + sinks.exp()[..., None]
    p = weights / torch.where(total == 0, 1, total)
    if factors is not None:
        p = p * factors
    return p @ v, total.log()[..., 0]


def wanted(call, numbers):
    """o, lse, the gradients of what is learnt, as the call gives them, and what their rounding goes by: of
    sinks and a bias, sums over rows whose terms cancel, the root of the terms' squares."""
    leaves = {name: numbers.given[name].double().requires_grad_() for name in "qkv"}
    of_rows = {"sinks": [], "bias": []}
    factors = None
    if call.dropout:
        seed, word = (int(x) for x in numbers.state.cpu().numpy().view(np.uint64))
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
        own = {}
        for name, each in of_rows.items():
            x = getattr(numbers, name)
            if x is not None:
                x = x.double()[:, None].expand(-1, length, *x.shape[1:]).contiguous()
                each.append(x.requires_grad_())
            own[name] = x
        drawn = None if factors is None else factors[b, :, :length, :keys]
        results.append(of_one(call, numbers, b, *parts, own["sinks"], own["bias"], drawn))
    if call.is_varlen:
        o = torch.cat([x.transpose(0, 1) for x, _ in results])
        lse = torch.full((call.batch, call.heads, call.length), -torch.inf, dtype=torch.float64)
        for b, (_, one) in enumerate(results):
            lse[b, :, : one.shape[1]] = one.detach()
    else:
        o, lse = (torch.stack(x) for x in zip(*results))
    gradients, scales = [], []
    for name in call.learns:
        asked = of_rows.get(name) or [leaves[name]]
        d_o = numbers.given["d_o"].double()
        found = torch.autograd.grad(o, asked, d_o, allow_unused=True, retain_graph=True)
        found = [torch.zeros_like(x) if g is None else g for x, g in zip(asked, found)]
        if name in of_rows:
            found = torch.cat(found, 1)
            scales.append(found.square().sum(1).max().sqrt().item())
            gradients.append(found.sum(1))
        else:
            scales.append(0.0)
            gradients.append(found[0])
    return o.detach(), lse.detach(), gradients, scales


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
        options["lengths"] = numbers.on(numbers.lengths)
    options["spans"] = spans_of(call, numbers)
    if call.way != "packed":
        options.update(
            softcap=call.softcap, dropout=call.dropout, alibi_slopes=numbers.on(numbers.slopes),
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
    return st.spans(call.batch, call.length, device=numbers.device, **rules)


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
        options["key_cu_seqlens"] = numbers.on(numbers.key_starts)
    return st.varlen_attention(q, k, v, pattern, numbers.on(numbers.starts), **options), None


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
            varlen=call.is_varlen, key_starts=call.own_keys, dtype=self.numbers.computed,
            device=self.numbers.device,
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
    starts = numbers.on(numbers.starts) if call.is_varlen else None
    key_starts = numbers.on(numbers.key_starts) if call.own_keys else None
    spans = spans_of(call, numbers)
    if call.is_varlen and spans is None:  # which a compiled graph cannot make
        spans = st.spans(
            call.batch, call.length, device=numbers.device, causal=call.causal,
            cu_seqlens=numbers.starts,
            **({"key_cu_seqlens": numbers.key_starts, "key_length": call.keys} if call.own_keys else {}),
        )
    given = (*(leaves[name] for name in "qkv"), numbers.on(numbers.lengths))
    given = (*given, spans, starts, key_starts)
    leaves["sinks"], leaves["bias"] = step.attention.sinks, step.attention.relative_bias
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    made = []
    for run in (step, compiled):
        torch.manual_seed(11)
        made.append(run(*given))
    return made


def gradient_of(call, numbers):
    """d_o where o is."""
    d_o = numbers.on(numbers.given["d_o"])
    if call.gradient == "expanded" and d_o.numel():
        return d_o.flatten()[:1].expand(d_o.shape)
    return laid_out(d_o, call.gradient)


def outputs_of(call, numbers, leaves):
    """o, of a module the same by a compiled graph, and lse where the function gives it."""
    kind = torch.device(numbers.device).type
    lse = again = None
    with torch.autocast(kind, torch.bfloat16, enabled=call.autocast):
        torch.manual_seed(11)
        if call.is_module:
            outputs = by_module(call, numbers, leaves)
        else:
            o, lse = by_function(call, numbers, leaves)
            outputs = [o]
            with torch.no_grad():
                torch.manual_seed(11)
                again = by_function(call, numbers, leaves)[0]
    if again is not None:
        assert torch.equal(again, outputs[0]), "without gradients bits are others"
    return outputs, lse


def on_host(x):
    return x.detach().float().cpu()


def check(call, seed, device, dtype):
    numbers = Numbers(call, seed, device, dtype)
    leaves = {name: numbers.given[name] for name in "qkv"} | {"sinks": numbers.sinks, "bias": numbers.bias}
    for name, x in leaves.items():
        if x is not None:
            leaves[name] = numbers.on(x.clone()).requires_grad_(name in call.learns)
    torch.manual_seed(11)
    numbers.state = st.dropout_state(device) if call.dropout else None
    outputs, lse = outputs_of(call, numbers, leaves)
    right_o, right_lse, gradients, scales = wanted(call, numbers)
    d_o, learnt = gradient_of(call, numbers), [leaves[name] for name in call.learns]
    of_o, of_gradients = TOLERANCES[numbers.computed]
    first = None
    for o in outputs:
        made = torch.autograd.grad(o, learnt, d_o)
        assert o.dtype == numbers.computed
        close(on_host(o), right_o, of_o)
        for name, one, right, scale in zip(call.learns, made, gradients, scales, strict=True):
            rounded = call.autocast and name in "qkv"  # to bf16
            allowed = max(of_gradients, 8e-3) if rounded else of_gradients
            if name not in "qkv":
                allowed *= max(1.0, scale / max(1.0, right.abs().max().item()))
            close(on_host(one), right, allowed)
        if first is not None:
            assert torch.equal(o, first[0]), "the compiled graph gives other bits"
            for name, one, eager in zip(call.learns, made, first[1]):
                assert torch.equal(one, eager), f"the compiled graph gives other bits of d_{name}"
        first = o, made
    if lse is not None:
        close(on_host(lse), right_lse, of_o)


def run(seed, count, device, dtype, seconds):
    """How many of `count` calls from `seed` on were made before so many seconds were over, how many of them
    are wrong, each of which is said, and which were refused how often."""
    made, wrong, refused = 0, 0, collections.Counter()
    end = time.monotonic() + seconds
    for one in range(seed, seed + count):
        if time.monotonic() > end:
            break
        made += 1
        call = call_of(random.Random(one))
        try:
            check(call, one, device, dtype)
        except Exception as error:
            if device != "cpu" and isinstance(error, spion.UserError):
                refused[str(error)] += 1
                continue
            wrong += 1
            traceback.print_exc()
            print(f"WRONG: random_calls.py --seed {one} --count 1: {call}", flush=True)
    return made, wrong, refused


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=secrets.randbits(40))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    args = parser.parse_args()
    if args.device == "cpu" and args.dtype != "fp32":
        parser.error("the host computes fp32 alone: leave --dtype out")
    print(f"random_calls.py --seed {args.seed} --count {args.count}", flush=True)
    dtype = DTYPES[args.dtype]
    made, wrong, refused = run(args.seed, args.count, args.device, dtype, args.seconds)
    for sentence, times in refused.items():
        print(f"refused {times} times: {sentence}")
    right = made - wrong - refused.total()
    print(f"{right} of {made} calls are right, {refused.total()} are refused")
    sys.exit(wrong > 0 or right == 0)


if __name__ == "__main__":
    main()
