"""`attn_implementation="spion"` for Hugging Face's encoders (transformers 5).

    import spion.transformers
    spion.transformers.register()
    model = AutoModel.from_config(config, attn_implementation="spion")
    spion.transformers.set_patterns(model, patterns)      one for all layers, or one for each

A layer without a pattern computes the full one. A padding mask becomes the number of valid keys of
each sample, so padding must be on the right. What the kernels do not have is refused by a sentence:
causal models, grouped queries, windows, dropout of probabilities, and masks of other forms.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import torch
from torch import nn

from ._core import UserError
from ._pattern import Pattern
from .torch import attention

NAME = "spion"
_BLOCK = 64  # of the full pattern, where none was set


class _Refused:
    """In a mask's place: some models make masks that none of their layers looks at."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor | _Refused | None:
    """What layers are given as their mask: valid keys of each sample [B] int32, None where all are
    valid. (Without a mask function of its own, transformers hands an attention no mask at all.)"""
    from transformers.masking_utils import bidirectional_mask_function

    if mask_function is not bidirectional_mask_function:
        return _Refused(
            "the model asks for a causal, sliding or other mask within the map, which spion does not "
            "have yet: use an encoder whose layers attend to all positions"
        )
    if q_length != kv_length or q_offset or kv_offset:
        return _Refused(
            f"{q_length} queries attend to {kv_length} keys, and spion computes self-attention "
            "alone: use another attn_implementation for cross-attention and caches"
        )
    if attention_mask is None or bool(attention_mask.all()):
        return None
    valid = attention_mask.bool()
    lengths = valid.sum(-1)
    positions = torch.arange(kv_length, device=valid.device)
    if bool((valid != (positions < lengths[:, None])).any()):
        return _Refused(
            "the padding mask has padding before or between tokens, and spion takes padding on the "
            "right alone: set tokenizer.padding_side = 'right'"
        )
    return lengths.to(torch.int32)


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | _Refused | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers: query, key, value [B, H, L, D] to [B, L, H, D]."""
    if isinstance(attention_mask, _Refused):
        raise UserError(attention_mask.sentence)
    _check(module, query, key, dropout, is_causal, kwargs)
    if attention_mask is not None and attention_mask.ndim != 1:
        raise UserError(
            f"the mask has shape {tuple(attention_mask.shape)}, and spion takes padding masks "
            "[B, L] alone"
        )
    pattern = getattr(module, "spion_pattern", None)
    if pattern is None:
        pattern = Pattern.full(query.shape[2], block=_BLOCK)
    o = attention(query, key, value, pattern, lengths=attention_mask, scale=scaling or 0.0)
    return o.transpose(1, 2), None


def _check(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    dropout: float,
    is_causal: bool | None,
    kwargs: dict[str, Any],
) -> None:
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", False)
    if causal:
        raise UserError(
            "the layer is causal, and a causal mask within blocks is not there yet: use another "
            "attn_implementation"
        )
    if key.shape[1] != query.shape[1]:
        raise UserError(
            f"{query.shape[1]} query heads share {key.shape[1]} heads of keys, and grouped-query "
            "attention is not there yet: use another attn_implementation"
        )
    if key.shape[2] != query.shape[2]:
        raise UserError(
            f"{query.shape[2]} queries attend to {key.shape[2]} keys, and spion computes "
            "self-attention alone: use another attn_implementation"
        )
    if dropout:
        raise UserError(
            f"the layer drops out probabilities ({dropout}), which spion does not: set the "
            "configuration's attention dropout to 0"
        )
    for name in ("softcap", "position_bias", "head_mask", "sliding_window"):
        if kwargs.get(name) is not None:
            raise UserError(f"the layer asks for {name}, which spion does not have")


def register() -> None:
    """Makes attn_implementation="spion" known to transformers, with its mask function."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, mask)


def set_patterns(model: nn.Module, patterns: Pattern | Sequence[Pattern]) -> None:
    """A pattern for all self-attention layers of the model, or one for each in order."""
    layers = [m for m in model.modules() if hasattr(m, "is_causal") and hasattr(m, "config")]
    each = [patterns] * len(layers) if isinstance(patterns, Pattern) else list(patterns)
    if not layers or len(each) != len(layers):
        raise UserError(
            f"{len(each)} patterns were given for {len(layers)} attention layers: give one, or one "
            "for each"
        )
    for layer, pattern in zip(layers, each):
        layer.spion_pattern = pattern
