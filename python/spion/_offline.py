"""What needs no device: the compiler's stages for any target, and bundles."""

from __future__ import annotations

import os
from typing import Sequence

from . import _core
from ._core import UserError
from ._pattern import Pattern
from ._plan import Attention

_KERNELS = ("forward", "backward_first", "backward_second")
_STAGES = ("attention", "program", "source", "ptx", "llvm", "binary", "assembly")


def emit(
    attention: Attention,
    target: str,
    *,
    kernel: str = "forward",
    stage: str = "source",
    typical: Pattern | None = None,
) -> str | bytes:
    """One stage of one kernel for a target ("sm_80", .., "sm_120", "host") that need not be here.

    kernel: "forward", "backward_first" (dQ, or delta) or "backward_second" (dK and dV, or all).
    stage: "attention", "program" (the tile program, docs/ir.md), "source", "ptx" (CUDA), "llvm"
    (host), "binary" (bytes) or "assembly".
    """
    for field, value, allowed in (("kernel", kernel, _KERNELS), ("stage", stage, _STAGES)):
        if value not in allowed:
            raise UserError(f"{field} is {value!r}: give one of {', '.join(allowed)}")
    made = _core.emit(
        attention.core(),
        target,
        _KERNELS.index(kernel),
        _STAGES.index(stage),
        typical._core if typical else None,
    )
    return made if stage == "binary" else made.decode()


def explain(attention: Attention, target: str, *, typical: Pattern | None = None) -> str:
    """Every tile shape of each kernel with its predicted cost, or why it cannot run."""
    return _core.explain(attention.core(), target, typical._core if typical else None)


def precompile(
    attentions: Sequence[Attention],
    *,
    targets: Sequence[str],
    bundle: str | os.PathLike[str],
) -> None:
    """Compiles kernels into the new folder `bundle`, for machines that may not compile; see
    load_bundle and frozen."""
    _core.write_bundle([one.core() for one in attentions], list(targets), os.fspath(bundle))


def check_bundle(path: str | os.PathLike[str]) -> str:
    """Reads and checks every entry; a line each."""
    return _core.check_bundle(os.fspath(path))
