"""What functions and modules are given, looked at before anything is made of it: mistakes that PyTorch, the
dispatcher or DLPack would pass on, or name in words that are not the caller's."""

from __future__ import annotations

from typing import Any

import torch

from .._core import UserError
from .._pattern import Pattern


def check_tensors(**given: Any) -> None:
    """Tensors of one device; None is no tensor."""
    device = None
    for name, x in given.items():
        if x is None:
            continue
        if not isinstance(x, torch.Tensor):
            raise UserError(f"{name} is a {type(x).__name__}: give a tensor of PyTorch")
        if device is None:
            first, device = name, x.device
        elif x.device != device:
            raise UserError(f"{first} is on {device} and {name} on {x.device}: move one of them")


def check_pattern(pattern: Any) -> None:
    if not isinstance(pattern, Pattern):
        raise UserError(
            f"the pattern is a {type(pattern).__name__}: give a spion.Pattern, as Pattern.full, "
            "from_bits and from_dense make them"
        )


def check_words(scale: Any, score: Any, score_derivative: Any, slopes: Any = None) -> None:
    """What has no gradient here must not ask for one."""
    for name, x in (("scale", scale), ("alibi_slopes", slopes)):
        if isinstance(x, torch.Tensor) and x.requires_grad:
            raise UserError(f"{name} requires a gradient, and it has none here: detach it")
    for name, x in (("score", score), ("score_derivative", score_derivative)):
        if not isinstance(x, str):
            raise UserError(
                f"{name} is a {type(x).__name__}: give an expression as a text, such as "
                '"score-0.1*fabs(q-k)"'
            )
