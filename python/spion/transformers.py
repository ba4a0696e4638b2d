"""`attn_implementation="spion"` for Hugging Face's models (transformers 5).

    import spion.transformers
    spion.transformers.register()
    model = AutoModel.from_config(config, attn_implementation="spion")
    spion.transformers.set_patterns(model, patterns)      one for all layers, or one for each
    spion.transformers.set_scores(model, "score-0.1*log(1+fabs(q-k))")      the same of scores

A layer without a pattern computes the full one. Encoders and decoders with grouped queries run, with
causal masks, sliding windows, packed sequences and padding on either side: any mask in which each
query keeps one stretch of keys and no stretch begins or ends before that of the query in front of
it. So do encoders' keys in decoders, dropout of probabilities (PyTorch's generator decides), caps of
scores (Gemma-2) and sinks (gpt-oss). What the kernels do not have is refused by a sentence: other masks,
caches of earlier tokens, biases.

Batches without padding, one row of sequences end to end, are computed as such where a call is given
cu_seq_lens_q (DataCollatorWithFlattening's return_flash_attn_kwargs), or where position_ids begin anew
and the layer's pattern is not of the whole row: patterns are then cut to each sequence.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import torch
from torch import nn

from . import _packed
from ._mask_functions import spans_of_function
from ._core import UserError
from ._pattern import Pattern
from .torch import attention
from .torch._stretches import spans_of

NAME = "spion"
_BLOCK = 64  # of the full pattern, where none was set


class _Refused:
    """In a mask's place: some models make masks that none of their layers looks at."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence


def _spans(
    function: Callable[..., Any], valid: torch.Tensor, batch: int, length: int
) -> torch.Tensor | None:
    """Of the mask that a function of transformers computes, less the keys that are not valid. One that is
    none of transformers' own is evaluated, element by element."""
    made = spans_of_function(function, valid, batch, length)
    if made is not None:
        return made
    device = valid.device
    keys, samples = torch.arange(length, device=device), torch.arange(batch, device=device)
    head = torch.zeros((), dtype=torch.int64, device=device)

    def rows(queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept = function(samples[:, None, None], head, queries[None, :, None], keys[None, None, :])
        kept = kept.expand(batch, len(queries), length) & valid[:, None, :]
        return kept, torch.ones_like(kept)

    return spans_of(rows, batch, length, device)


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: torch.Tensor | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_: Any,
) -> torch.Tensor | _Refused | None:
    """What layers are given as their mask: None where the layer's own `is_causal` says all of it, the
    number of valid keys of each sample [B] int32, or spans [2, B, L, 2]. (Without a mask function of
    its own, transformers hands an attention no mask at all.)"""
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

    across = mask_function is bidirectional_mask_function
    if (q_length != kv_length and not across) or q_offset or kv_offset:
        return _Refused(
            f"{q_length} queries attend to {kv_length} keys, of which some may come from a cache, and "
            "spion has no caches: use another attn_implementation"
        )
    if mask_function is None or use_vmap:
        return _Refused(
            "the model brings a mask function of its own, which spion does not evaluate: use "
            "another attn_implementation"
        )
    plain = mask_function in (bidirectional_mask_function, causal_mask_function)
    if plain and (attention_mask is None or bool(attention_mask.all())):
        return None
    if attention_mask is None:
        valid = torch.ones(batch_size, kv_length, dtype=torch.bool, device=device)
    else:
        valid = attention_mask.bool()
    if plain:
        lengths = valid.sum(-1)
        positions = torch.arange(kv_length, device=valid.device)
        if bool((valid == (positions < lengths[:, None])).all()):
            return lengths.to(torch.int32)
    if q_length != kv_length:
        return _Refused(
            f"{q_length} queries attend to {kv_length} keys that are not padded at their end alone: "
            "put padding on the right, or use another attn_implementation"
        )
    made = _spans(mask_function, valid, batch_size, kv_length)
    if made is None:
        return _Refused(
            "the mask leaves gaps between the keys of a query, or keys that come back later, and "
            "spion takes one stretch of keys a query: put padding at the ends, and use another "
            "attn_implementation for other masks"
        )
    return made


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
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", False)
    lengths = spans = None
    if attention_mask is not None and attention_mask.ndim == 1:
        lengths = attention_mask
    elif attention_mask is not None and attention_mask.dtype == torch.int32:
        spans, causal = attention_mask, False  # all of the mask
    elif attention_mask is not None:
        raise UserError(
            f"the mask has shape {tuple(attention_mask.shape)}, and spion takes the padding masks "
            "[B, L] and mask functions of transformers alone"
        )
    _check(query, key, bool(causal), spans is not None, kwargs)
    pattern = getattr(module, "spion_pattern", None)
    sinks = kwargs.get("s_aux")
    score, derivative = getattr(module, "spion_score", ("", ""))
    numbers: dict[str, Any] = {
        "scale": scaling or 0.0,
        "softcap": kwargs.get("softcap") or 0.0,
        "dropout": dropout,
        "sinks": None if sinks is None else sinks.float(),
        "score": score,
        "score_derivative": derivative,
    }
    sequences = _packed.sequences_of(query, key, pattern, lengths, kwargs)
    if sequences is not None:
        packed = _packed.attend(module, query, key, value, sequences, spans, bool(causal), **numbers)
        return packed, None
    if pattern is None:
        pattern = Pattern.full(query.shape[2], block=_BLOCK, key_length=key.shape[2])
    given = {"lengths": lengths, "causal": bool(causal), "spans": spans, **numbers}
    return attention(query, key, value, pattern, **given).transpose(1, 2), None


def _check(
    query: torch.Tensor,
    key: torch.Tensor,
    causal: bool,
    windowed: bool,
    kwargs: dict[str, Any],
) -> None:
    if key.shape[2] != query.shape[2] and causal:
        raise UserError(
            f"{query.shape[2]} queries attend to {key.shape[2]} keys, of which some may come from a "
            "cache, and spion has no caches: use another attn_implementation"
        )
    if kwargs.get("sliding_window") is not None and not windowed:
        raise UserError(
            "the layer asks for a sliding window and was given no mask that has it: call "
            "spion.transformers.register() before the model is run"
        )
    for name in ("position_bias", "head_mask"):
        if kwargs.get(name) is not None:
            raise UserError(f"the layer asks for {name}, which spion does not have")


def register() -> None:
    """Makes attn_implementation="spion" known to transformers, with its mask function."""
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        raise UserError(
            f"spion.transformers takes transformers 5.0 or later, and this is "
            f"{transformers.__version__}: pip install 'transformers>=5.0'"
        )
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, mask)


def _layers(model: nn.Module) -> list[Any]:
    """Those of self-attention, in order."""
    return [m for m in model.modules() if hasattr(m, "is_causal") and hasattr(m, "config")]


def set_patterns(model: nn.Module, patterns: Pattern | Sequence[Pattern]) -> None:
    """A pattern for all self-attention layers of the model, or one for each in order."""
    layers = _layers(model)
    each = [patterns] * len(layers) if isinstance(patterns, Pattern) else list(patterns)
    if not layers or len(each) != len(layers):
        raise UserError(
            f"{len(each)} patterns were given for {len(layers)} attention layers: give one, or one "
            "for each"
        )
    for layer, pattern in zip(layers, each):
        layer.spion_pattern = pattern


def set_scores(
    model: nn.Module,
    scores: str | Sequence[str],
    derivatives: str | Sequence[str] = "",
) -> None:
    """What scores become: an expression for all self-attention layers of the model, or one for each in
    order, "" for none; spion.torch.attention says what they may be, and when derivatives are given."""
    layers = _layers(model)
    each = []
    for name, given in (("scores", scores), ("derivatives", derivatives)):
        texts = [given] * len(layers) if isinstance(given, str) else list(given)
        if not layers or len(texts) != len(layers):
            raise UserError(
                f"{len(texts)} {name} were given for {len(layers)} attention layers: give one, or one "
                "for each"
            )
        each.append(texts)
    for layer, *pair in zip(layers, *each):
        layer.spion_score = tuple(pair)
