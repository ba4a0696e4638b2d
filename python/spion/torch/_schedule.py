"""The method (SPION) for any model: train dense, watch the attention maps, turn sparse."""

from __future__ import annotations

import math
from typing import Any, Callable

import numpy
import torch
from torch import nn

from .._context import canonical, context
from .._core import UserError
from .._discoverer import Discoverer
from .._pattern import Pattern
from ._module import BlockSparseAttention
from ._packed import as_heads, parts
from ._passes import readable
from ._plans import with_index


class SpionSchedule:
    """Watches the BlockSparseAttention modules of a model, which begin with the full pattern.

        schedule = SpionSchedule(model)
        if not schedule.sparse and step % every == 0:
            if schedule.observe(lambda: model(batch)):      the rule holds
                schedule.turn_sparse()
                scheduler = schedule.restart(optimizer, steps_left, peak)

    At evaluation t each layer has dist_t = ||A_t - A_(t-1)||_F of its pooled map, and change_t =
    |dist_t - dist_(t-1)| / dist_(t-1) in per cent. The rule holds when trunc(change_t) < percent in
    every layer, so the third evaluation is the first that can decide. A layer that begins with
    Pattern.from_heads of full ones gets a pattern for each of these. variant, filter, quantile and
    density: of spion.discover.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        percent: int = 15,
        variant: str = "cf",
        filter: int = 31,
        quantile: float = 0.96,
        density: float = 0.04,
    ) -> None:
        self.layers = [m for m in model.modules() if isinstance(m, BlockSparseAttention)]
        if not self.layers:
            raise UserError(
                "the model has no BlockSparseAttention: put it where attention is computed, with "
                "Pattern.full"
            )
        if percent < 1:
            raise UserError(f"percent is {percent}: give 1 or more")
        self.percent = percent
        self.sparse = False
        self.changes: list[float] = (
            []
        )  # of the last evaluation, in per cent; empty before the third
        self._settings = {
            "variant": variant,
            "filter": filter,
            "quantile": quantile,
            "density": density,
        }
        self._maps: list[numpy.ndarray | None] = [None] * len(self.layers)
        self._found: list[Pattern | None] = [None] * len(self.layers)
        self._distances: list[float] = []
        self._discoverers: dict[tuple[Any, ...], Discoverer] = {}

    def observe(self, run: Callable[[], object]) -> bool:
        """One evaluation: calls run(), which calls the model once, without gradients and uncompiled,
        and pools each layer's map on the device. True when the rule holds now."""
        if self.sparse:
            raise UserError("the model is sparse already: its maps have no say any more")
        seen: set[int] = set()
        hooks = [
            layer.register_forward_pre_hook(self._look(index, seen), with_kwargs=True)
            for index, layer in enumerate(self.layers)
        ]
        before = list(self._maps)
        try:
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                run()
        finally:
            for hook in hooks:
                hook.remove()
        if len(seen) != len(self.layers):
            raise UserError(
                f"{len(seen)} of {len(self.layers)} attention modules were called: run() must call "
                "the whole model"
            )
        return self._judge(before)

    def turn_sparse(self) -> list[Pattern]:
        """Gives each layer the pattern in its last map; compiles nothing. Returns them."""
        if any(found is None for found in self._found):
            raise UserError("no maps have been seen: call observe first")
        for layer, found in zip(self.layers, self._found):
            layer.set_pattern(found)
        self.sparse = True
        return [layer.pattern for layer in self.layers]

    @staticmethod
    def restart(
        optimizer: torch.optim.Optimizer, steps: int, peak: float, warmup: float = 0.1
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """The learning rate begins a new cycle over the `steps` that are left: linear from peak / 25
        up to the peak in the fraction `warmup` of them, then linear down to peak / 250000 (PyTorch's
        OneCycleLR with anneal_strategy="linear")."""
        if steps < 1 or not 0 <= warmup <= 1:
            raise UserError(
                f"{steps} steps, {warmup} of them to warm up: give 1 or more, and 0 to 1"
            )
        top = warmup * steps - 1  # the step of the peak
        bottom = max(steps - 1, 1)

        def factor(step: int) -> float:
            if step <= top:
                return 1 / 25 + (1 - 1 / 25) * (step / top if top > 0 else 1.0)
            down = min((step - max(top, 0)) / max(bottom - max(top, 0), 1), 1.0)
            return 1.0 + (1 / 250000 - 1.0) * down

        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = peak
        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def state_dict(self) -> dict[str, Any]:
        return {"sparse": self.sparse, "distances": list(self._distances), "maps": list(self._maps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if len(state["maps"]) != len(self.layers):
            raise UserError(f"the state is of {len(state['maps'])} layers, not {len(self.layers)}")
        self.sparse = state["sparse"]
        self._distances, self._maps = list(state["distances"]), list(state["maps"])

    def _look(self, index: int, seen: set[int]) -> Callable[..., None]:
        def hook(layer: BlockSparseAttention, args: Any, kwargs: dict[str, Any]) -> None:
            discoverer = self._discoverer(layer)  # which says first what it cannot look at
            given = {**dict(zip(("q", "k", "v", "lengths"), args)), **kwargs}
            operands = [given[name] for name in ("q", "k", "v") if given.get(name) is not None]
            if len(operands) == 1:
                operands = [*parts(as_heads(operands[0], layer.heads), layer.heads)]
            q, k, v = (x.detach().to(layer.dtype) for x in operands)
            lengths = given.get("lengths")
            _, lse = layer.with_lse(q, k, v, lengths, drop=False)
            found, pooled = discoverer(
                readable(q),
                readable(k),
                lse,
                lengths=lengths,
                alibi_slopes=layer.alibi_slopes,
            )
            self._found[index], self._maps[index] = found, pooled
            seen.add(index)

        return hook

    def _discoverer(self, layer: BlockSparseAttention) -> Discoverer:
        plan = layer.plan
        key = (plan.attention, str(layer.tables.device))
        if key not in self._discoverers:
            opened = context(canonical(with_index(layer.tables.device)))
            self._discoverers[key] = Discoverer(plan.attention, opened, **self._settings)
        return self._discoverers[key]

    def _judge(self, before: list[numpy.ndarray | None]) -> bool:
        if any(old is None for old in before):
            return False
        distances = [float(numpy.linalg.norm(a - b)) for a, b in zip(self._maps, before)]
        for index, distance in enumerate(distances):
            if not math.isfinite(distance):
                raise UserError(
                    f"the attention map of layer {index} moved by {distance}: training has "
                    "diverged, so lower the learning rate"
                )
        last, self._distances = self._distances, distances
        if not last:
            return False
        self.changes = [_change(now, old) for now, old in zip(distances, last)]
        return all(
            change < math.inf and math.trunc(change) < self.percent for change in self.changes
        )


def _change(distance: float, previous: float) -> float:
    """In per cent."""
    if previous == 0:
        return 0.0 if distance == 0 else math.inf
    return abs(distance - previous) / previous * 100
