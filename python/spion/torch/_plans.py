"""Plans of the operator: found by what tensors are, never by their pattern; and tables of patterns."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from .. import _core
from .._context import canonical
from .._context import context as _context
from .._core import UserError
from .._pattern import Pattern
from .._plan import HEAD, Attention, Plan

_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


class Words(NamedTuple):
    """What the operator is told beside its tensors."""

    block: int
    scale: float
    softmax: str
    causal: bool


class Changes(NamedTuple):
    """What spion::general_attention is told beside that, or sees."""

    key_length: int = 0  # 0: as many as queries
    softcap: float = 0.0
    dropout: float = 0.0
    patterns: int = 1
    alibi: bool = False
    sinks: bool = False
    value_dim: int = 0  # 0: as wide as queries
    varlen: bool = False
    relative_bias: int = 0  # R; 0: there is none
    key_starts: bool = False
    sequence_patterns: int = 0
    score: str = ""
    score_derivative: str = ""


class _Key(NamedTuple):
    device: torch.device
    dtype: torch.dtype
    heads: int
    key_value_heads: int
    length: int
    head_dim: int
    padded: bool
    spans: bool
    words: Words
    changes: Changes = Changes()


def _lasting(like: torch.Tensor, size: int) -> torch.Tensor:
    """Memory that outlives the call. Made on a thread of its own: PyTorch's CUDA graph trees give all
    that a thread allocates while they warm up to the graph, and refuse what is still alive then."""
    made: list[Any] = []

    def make() -> None:
        try:
            memory = torch.empty(size, dtype=torch.uint8, device=like.device)
            made.extend((memory, torch.cuda.current_stream(like.device).record_event()))
        except Exception as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], Exception):
        raise made[0]
    # Whoever had the memory before may still be at work on that thread's stream.
    torch.cuda.current_stream(like.device).wait_event(made[1])
    return made[0]


_plans: dict[tuple[_Key, int], Plan] = {}  # by key and numbers of tables
_usual: dict[_Key, Plan] = {}  # those whose patterns may have any number of blocks


def _past_the_dispatcher(name: str) -> Any:
    """An allocator of PyTorch's that its own compiled code calls; None where this release lacks it."""
    return getattr(getattr(getattr(torch._C, "_dynamo", None), "guards", None), name, None)


# The operators' way without this file's Python, for calls whose plan is there.
direct = _core.Operator(
    SimpleNamespace(
        empty_like=torch.empty_like,
        new_empty=lambda like, sizes, dtype: like.new_empty(sizes, dtype=dtype),
        empty_cpu=_past_the_dispatcher("_empty_strided_cpu"),
        empty_cuda=_past_the_dispatcher("_empty_strided_cuda"),
        current_device=getattr(torch._C, "_cuda_getDevice", None),
        device_count=torch.cuda.device_count,
        is_capturing=getattr(torch._C, "_cuda_isCurrentStreamCapturing", lambda: False),
        lasting=_lasting,
        float32=torch.float32,
        float16=torch.float16,
        bfloat16=torch.bfloat16,
        uint8=torch.uint8,
    )
)


def with_index(device: torch.device | str) -> torch.device:
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def check(device: torch.device, dtype: torch.dtype) -> None:
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"tensors are on {device}: spion computes on cpu and cuda")
    if dtype not in _DTYPES:
        raise UserError(
            f"tensors are of {dtype}: attention computes in float32, bfloat16 and float16; convert "
            "them"
        )


def check_rank(x: torch.Tensor, name: str = "q") -> None:
    if x.ndim != 4:
        raise UserError(f"{name} has shape {tuple(x.shape)}: give tensors [B, H, L, D]")


def check_ranks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Of sequences that lie end to end."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 3:
            raise UserError(f"{name} has shape {tuple(x.shape)}: give tensors [T, H, D]")


def _attention_of(key: _Key) -> Attention:
    return Attention(
        heads=key.heads,
        head_dim=key.head_dim,
        length=key.length,
        dtype=_DTYPES[key.dtype],
        key_padding=key.padded,
        key_value_heads=key.key_value_heads,
        spans=key.spans,
        **key.words._asdict(),
        **key.changes._asdict(),
    )


def plan(
    *,
    heads: int,
    head_dim: int,
    length: int,
    block: int = 64,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    scale: float = 0.0,
    softmax: str = "masked",
    key_padding: bool = False,
    key_value_heads: int = 0,
    causal: bool = False,
    spans: bool = False,
    dropout: float = 0.0,
    key_length: int = 0,
    softcap: float = 0.0,
    alibi: bool = False,
    sinks: bool = False,
    patterns: int = 1,
    value_dim: int = 0,
    varlen: bool = False,
    relative_bias: int = 0,
    key_starts: bool = False,
    sequence_patterns: int = 0,
    score: str = "",
    score_derivative: str = "",
    typical: Pattern | None = None,
    max_blocks: int = 0,
    batch: int = 0,
) -> Plan:
    """The plan that the operator takes for tensors [B, heads, length, head_dim], or with varlen for
    sequences of at most `length` positions; made, with its kernels, if there is none yet. Call it before a
    CUDA graph is captured, and to give `typical` or `max_blocks`; spion.Attention has the parameters."""
    where, kv_heads, spans = with_index(device), key_value_heads or heads, spans or varlen
    check(where, dtype)
    words = Words(block, float(scale), softmax, causal)
    keys = 0 if key_length == length else key_length
    values = 0 if value_dim == head_dim else value_dim
    numbers = float(softcap), float(dropout), patterns or 1
    rest = varlen, relative_bias, key_starts, sequence_patterns, score, score_derivative
    changes = Changes(keys, *numbers, alibi, sinks, values, *rest)
    key = _Key(where, dtype, heads, kv_heads, length, head_dim, key_padding, spans, words, changes)
    if max_blocks == 0 and key in _usual:
        return _usual[key]
    bounds = {"typical": typical, "max_blocks": max_blocks, "batch": batch}
    made = Plan(_attention_of(key), _context(canonical(where)), **bounds)
    kept = _plans.setdefault((key, made.table_bytes // 4), made)
    if max_blocks == 0:
        _usual[key] = kept
    return kept


def find(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor | None,
    spans: torch.Tensor | None,
    words: Words,
    changes: Changes | None = None,
    slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> Plan:
    """The plan of a call, from now on known to `direct` too: of spion::general_attention with
    `changes`, to which the number of keys and the width of V are added here, else of
    spion::attention."""
    check_rank(q)
    check_rank(k, "k")
    check_rank(v, "v")
    _, heads, length, width = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    padded, masked = lengths is not None, spans is not None
    seen = Changes()
    if changes is not None:
        seen = changes._replace(
            key_length=0 if keys == length else keys,
            value_dim=value_dim_of(q, v),
        )
    key = _Key(q.device, q.dtype, heads, kv_heads, length, width, padded, masked, words, seen)
    found = _found(key, tables)
    given = (found.core, q.detach(), k.detach(), v.detach(), tables, lengths, spans, *words)
    if changes is None:
        direct.add(*given)
    else:
        numbers = seen.softcap, seen.dropout, seen.patterns
        expressions = seen.score, seen.score_derivative
        direct.add_general(*given, *numbers, slopes, sinks, bias, *expressions)
    return found


def value_dim_of(q: torch.Tensor, v: torch.Tensor) -> int:
    """Of Changes."""
    return 0 if v.shape[-1] == q.shape[-1] else v.shape[-1]


def reach_of(bias: torch.Tensor | None) -> int:
    """R of a bias by relative position; 0 without one."""
    if bias is None:
        return 0
    if bias.ndim != 2 or bias.shape[1] < 3 or bias.shape[1] % 2 == 0:
        raise UserError(
            f"relative_bias has shape {tuple(bias.shape)}: give [H, 2R + 1], a bias a head and "
            "distance from -R to R"
        )
    return bias.shape[1] // 2


def find_sequences(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tables: torch.Tensor | None,
    length: int,
    words: Words,
    changes: Changes,
) -> Plan:
    """The plan of a call of spion::varlen_attention, whose tensors are [T, H, D]; without tables the
    one whose patterns may have any number of blocks."""
    check_ranks(q, k, v)
    _, heads, width = q.shape
    key = _Key(
        q.device, q.dtype, heads, k.shape[1], length, width, False, True, words, changes
    )
    return _found(key, tables)


def _found(key: _Key, tables: torch.Tensor | None) -> Plan:
    """The plan of the key that has these tables; made where there is none."""
    numbers = tables.shape[0] if tables is not None and tables.ndim == 1 else -1
    found = _usual.get(key) if tables is None else _plans.get((key, numbers))
    if found is None:
        found = plan(
            heads=key.heads,
            head_dim=key.head_dim,
            length=key.length,
            dtype=key.dtype,
            device=key.device,
            key_padding=key.padded,
            key_value_heads=key.key_value_heads,
            spans=key.spans,
            **key.words._asdict(),
            **key.changes._asdict(),
        )
        if tables is not None:
            check_tables(tables, found)
    return found


def check_tables(tables: torch.Tensor, found: Plan) -> None:
    if tables.ndim != 1 or tables.shape[0] * 4 != found.table_bytes:
        raise UserError(
            f"the tables have shape {tuple(tables.shape)} and a plan for these tensors takes "
            f"[{found.table_bytes // 4}]: make them by spion.torch.tables, after "
            "spion.torch.plan if they are for other max_blocks"
        )


def tables(pattern: Pattern, plan: Plan, out: torch.Tensor | None = None) -> torch.Tensor:
    """The pattern's index tables for the operator, on the plan's device: int32 [table_bytes / 4].
    out: a tensor of earlier tables, which is written instead."""
    numbers = torch.from_numpy(plan.tables(pattern))
    if out is None:
        out = numbers.to(plan.context.name)
    else:
        with torch.no_grad():
            out.copy_(numbers)
    note_head(out, numbers)
    return out


def note_head(placed: torch.Tensor, numbers: torch.Tensor) -> None:
    """Leaves the first numbers beside tables on a GPU, so that calls refuse those of another plan
    without waiting. They count while nobody writes to the tensor."""
    if placed.is_cuda and not placed.is_inference():
        noted: Any = (numbers[:HEAD].numpy().tobytes(), placed._version)
        placed._spion_head = noted  # type: ignore[attr-defined]
