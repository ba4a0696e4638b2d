"""Contexts: a device with its kernels, opened once a process."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Iterator

from . import _core
from ._core import UserError

_lock = threading.Lock()
_opened: dict[str, "Context"] = {}
_bundle: str | None = None


class Context:
    """A device and its kernels. Thread-safe; `context(device)` gives the process's own.

    device: "cpu" or "cuda:N". cache: a folder for compiled kernels, "" for none on disk; None: the
    command's. bundle: a folder of kernels that is looked in first. frozen: what would compile
    raises Frozen. threads: that compute on the host; 0: all.
    """

    def __init__(
        self,
        device: str = "cpu",
        *,
        cache: str | os.PathLike[str] | None = None,
        bundle: str | os.PathLike[str] | None = None,
        frozen: bool = False,
        threads: int = 0,
    ) -> None:
        self.name = canonical(device)
        cuda = self.name != "cpu"
        self._core = _core.Context.open(
            cuda,
            int(self.name.split(":")[1]) if cuda else 0,
            threads,
            frozen,
            cache == "",
            os.fspath(cache) if cache else None,
            os.fspath(bundle) if bundle is not None else None,
        )

    @property
    def device(self) -> str:
        """The device's name, as "NVIDIA H100 80GB HBM3"."""
        return self._core.device

    @property
    def target(self) -> str:
        """What kernels are compiled for: "sm_90a", or LLVM's name of the CPU."""
        return self._core.target

    @property
    def compiles(self) -> int:
        """Kernels that were compiled so far."""
        return self._core.counters()[0]

    def freeze(self, frozen: bool = True) -> None:
        """From now on what would compile raises Frozen, or no longer does."""
        self._core.freeze(frozen)

    def __repr__(self) -> str:
        return f"Context({self.name!r}: {self.device}, {self.target})"


def canonical(device: object) -> str:
    """ "cpu", or "cuda:N" for "cuda:N", "cuda" and torch.device's."""
    name = str(device)
    if name == "cuda":
        return "cuda:0"
    kind, _, ordinal = name.partition(":")
    if name == "cpu" or (kind == "cuda" and ordinal.isdecimal()):
        return name
    raise UserError(f"the device is {name!r}: give 'cpu' or 'cuda:N'")


def context(device: object = "cpu") -> Context:
    """The process's context of a device, opened when it is first asked for."""
    name = canonical(device)
    with _lock:
        if name not in _opened:
            _opened[name] = Context(name, bundle=_bundle)
        return _opened[name]


def load_bundle(path: str | os.PathLike[str]) -> None:
    """Contexts that are opened from now on look for kernels in this folder first. A bundle is code:
    load only those whose maker you trust."""
    global _bundle
    with _lock:
        if _opened:
            raise UserError(
                f"contexts of {', '.join(_opened)} are open already: load the bundle before the "
                "first plan, or open a Context with bundle="
            )
        _bundle = os.fspath(path)


def compiles() -> int:
    """Kernels that this process's contexts have had compiled so far."""
    return sum(opened.compiles for opened in _opened.values())


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Within it what would compile raises Frozen, in every context that is open."""
    opened = list(_opened.values())
    for one in opened:
        one.freeze(True)
    try:
        yield
    finally:
        for one in opened:
            one.freeze(False)


def doctor() -> str:
    """What is usable here, a line each."""
    lines = [
        f"spion {_core.version()}, binary interface {_core.abi_version() >> 16}."
        f"{_core.abi_version() & 0xFFFF}"
    ]
    for name in ("cpu", "cuda:0"):
        try:
            opened = context(name)
            lines.append(f"{name}: {opened.device}, {opened.target}")
        except (ValueError, RuntimeError) as error:
            lines.append(f"{name}: not usable: {error}")
    return "\n".join(lines)


# Neither threads nor a driver come along into a fork.
os.register_at_fork(after_in_child=_opened.clear)
