"""A random call of spion.torch, for random_calls.py: its options, of those that are allowed together, and its
numbers."""

import dataclasses

import numpy as np
import torch

import spion

# The text, and the same of (scores, sample, head, query, key).
EXPRESSIONS = {
    "2*tanh(score/2)": lambda s, b, h, q, k: 2 * torch.tanh(s / 2),
    "score-0.1*log(1+fabs(q-k))": lambda s, b, h, q, k: s - 0.1 * torch.log(1 + (q - k).abs()),
    "score*(1+head)/3-0.02*batch*k": lambda s, b, h, q, k: s * (1 + h) / 3 - 0.02 * b * k,
    "q < 40 ? tanh(score) : 0.5*score": lambda s, b, h, q, k: torch.where(
        q < 40, torch.tanh(s), 0.5 * s
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
    """The tensors of a call, on the host, as the reference takes them; `on` says what the call is given, on
    `device` and in `dtype`. Of sequences q is [T, H, D], else [B, H, L, D]."""

    def __init__(self, call, seed, device="cpu", dtype=torch.float32):
        self.call, self.rng, self.device = call, np.random.default_rng(seed), device
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
        given = torch.bfloat16 if call.autocast else dtype
        self.given = {name: self._normal(*shape).to(given) for name, shape in shapes.items()}
        # Of o; autocast on the host computes in float32, on a GPU in what is given.
        self.computed = torch.float32 if device == "cpu" else given
        self.given["d_o"] = self.given["d_o"].to(self.computed)
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

    def on(self, x):
        """A tensor or array, or None, where the call takes it."""
        return x if x is None else torch.as_tensor(x).to(self.device)

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
