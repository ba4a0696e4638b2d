"""Calls of what an attention may have beside its pattern, and what they must give: by the reference in
float64. Without spion.torch, for which a process has another registrar in test_stable.py."""

import numpy as np
import reference
import torch

import spion

BLOCK, HEADS, LENGTH, WIDTH, BATCH = 32, 4, 90, 16, 2
SEED, OFFSET = 0x123456789ABCDEF, 77
CASES = {
    "more keys": {"keys": 150},
    "fewer keys, grouped heads": {"keys": 40, "shared": 2, "causal": True},
    "softcap": {"softcap": 1.5},
    "slopes": {"alibi": True, "causal": True},
    "sinks": {"sinks": True},
    "sinks, pruned zero": {"sinks": True, "softmax": "pruned_zero"},
    "dropout": {"dropout": 0.25},
    "patterns of heads": {"patterns": 4},
    "patterns of shared heads": {"patterns": 2, "shared": 2, "dropout": 0.1},
    "slopes over more keys": {"keys": 130, "alibi": True},
    "all": {"patterns": 2, "shared": 2, "softcap": 2.0, "alibi": True, "sinks": True, "dropout": 0.3},
    "bias": {"reach": 20},
    "bias over more keys": {"reach": 200, "keys": 130, "shared": 2, "causal": True},
    "bias of patterns": {"reach": 3, "patterns": 4, "softcap": 2.0, "sinks": True, "dropout": 0.2},
    "wider values": {"values": 40},
    "narrower values, grouped heads": {"values": 16, "width": 24, "shared": 2, "causal": True},
}
CASES["values and all"] = {"values": 24, "keys": 130, **CASES["all"]}


EXPRESSION = "2*tanh(score/2)-0.05*(1+head)*fabs(q-k)"


def express(scores):
    """The same of scores [B, H, L, Lk]."""
    head, q, k = (torch.arange(size) for size in scores.shape[1:])
    return 2 * torch.tanh(scores / 2) - 0.05 * (1 + head[:, None, None]) * (q[:, None] - k).abs()


class Case:
    def __init__(
        self, keys=LENGTH, shared=HEADS, patterns=1, causal=False, softcap=0.0, alibi=False,
        sinks=False, dropout=0.0, softmax="masked", width=WIDTH, values=WIDTH, reach=0,
        expressed=False,
    ):
        numbers = np.random.default_rng(len(str(locals())))

        def normal(*shape):
            return numbers.standard_normal(shape).astype(np.float32)

        self.q, self.d_o = normal(BATCH, HEADS, LENGTH, width), normal(BATCH, HEADS, LENGTH, values)
        self.k, self.v = normal(BATCH, shared, keys, width), normal(BATCH, shared, keys, values)
        self.bits = numbers.random((patterns, -(-LENGTH // BLOCK), -(-keys // BLOCK))) < 0.6
        bits = self.bits[0] if patterns == 1 else self.bits
        self.pattern = spion.Pattern.from_bits(bits, LENGTH, block=BLOCK, key_length=keys)
        self.slopes = np.abs(normal(HEADS)) / 8 if alibi else None
        self.sinks = normal(HEADS) if sinks else None
        self.bias = normal(HEADS, 2 * reach + 1) if reach else None
        self.words = {"causal": causal, "softcap": softcap, "dropout": dropout, "softmax": softmax}
        self.fields = {
            "heads": HEADS, "head_dim": width, "length": LENGTH, "block": BLOCK,
            "key_length": keys, "key_value_heads": shared, "patterns": patterns,
            "alibi": alibi, "sinks": sinks, **self.words,
        }
        if reach:
            self.fields["relative_bias"] = reach
        self.change = express if expressed else None
        if expressed:
            self.fields["score"] = EXPRESSION
        if values != width:
            self.fields["value_dim"] = values
        self.state = spion.dropout_state(SEED, OFFSET) if dropout else None

    def given(self, convert=lambda x: x):
        given = {"dropout_state": self.state, "alibi_slopes": self.slopes, "sinks": self.sinks}
        given["relative_bias"] = self.bias
        return {name: None if x is None else convert(x) for name, x in given.items()}

    def wanted(self):
        """o, lse, d_q, d_k, d_v and, with sinks, d_sinks, and with a bias its gradient."""
        inputs = (self.q, self.k, self.v, self.sinks, self.bias)
        q, k, v, sinks, bias = leaves = [
            None if x is None else torch.from_numpy(x).double().requires_grad_() for x in inputs
        ]
        words = dict(self.words)
        dropout, softmax = words.pop("dropout"), words.pop("softmax")
        factors = None
        if dropout:
            sizes = (BATCH, HEADS, LENGTH, self.k.shape[2])
            factors = reference.kept_factors(dropout, SEED, OFFSET, *sizes)
        o, lse = reference.attention(
            q, k, v, self.bits, BLOCK, **words,
            slopes=None if self.slopes is None else torch.from_numpy(self.slopes).double(),
            sinks=sinks, bias=bias, factors=factors, change=self.change,
            pruned_zero=softmax == "pruned_zero",
        )
        leaves = [x for x in leaves if x is not None]
        gradients = torch.autograd.grad(o, leaves, torch.from_numpy(self.d_o).double())
        return [x.detach().numpy() for x in (o, lse, *gradients)]
