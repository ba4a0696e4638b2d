"""Masks of transformers: what is read from how they are made is what they say of each element, and long packed
rows take no memory of L x L."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, masking_utils

import spion
import spion.transformers
from spion import _mask_functions
from spion.torch._stretches import spans_of

LENGTH, BATCH = 60, 3
# Positions of packed rows, which begin anew.
POSITIONS = torch.stack(
    [torch.cat([torch.arange(n) for n in row]) for row in ((20, 1, 39), (60,), (7, 7, 46))]
)
PACKED = masking_utils.find_packed_sequence_indices(POSITIONS)


def packed(function):
    """As create_causal_mask puts them together."""
    remapped = masking_utils.remap_positions_for_packed_sequence(function, POSITIONS)
    return masking_utils.and_masks(remapped, masking_utils.packed_sequence_mask_function(PACKED))


PADDING = torch.tensor([0, 13, 4])  # on the left
FUNCTIONS = {
    "causal": masking_utils.causal_mask_function,
    "whole": masking_utils.bidirectional_mask_function,
    "window": masking_utils.sliding_window_causal_mask_function(9),
    "window on both sides": masking_utils.sliding_window_bidirectional_mask_function(6),
    "chunks": masking_utils.chunked_causal_mask_function(16, PADDING),
    "packed": packed(masking_utils.causal_mask_function),
    "packed windows": packed(masking_utils.sliding_window_causal_mask_function(9)),
}
VALID = {
    "all": torch.ones(BATCH, LENGTH, dtype=torch.bool),
    "left": torch.arange(LENGTH) >= PADDING[:, None],
    "right": torch.arange(LENGTH) < torch.tensor([60, 33, 0])[:, None],
}


def dense(function, valid):
    at = torch.arange(LENGTH)
    sample, head = torch.arange(BATCH)[:, None, None], torch.zeros((), dtype=torch.int64)
    kept = function(sample, head, at[None, :, None], at[None, None]).expand(BATCH, LENGTH, LENGTH)
    return kept & valid[:, None]


@pytest.mark.parametrize("padding", VALID)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_read_is_what_is_evaluated(name, padding):
    function, valid = FUNCTIONS[name], VALID[padding]
    found = _mask_functions.spans_of_function(function, valid, BATCH, LENGTH)
    wanted = dense(function, valid)
    at = torch.arange(LENGTH)
    for (begin, end), kept in ((found[0].unbind(-1), wanted), (found[1].unbind(-1), wanted.mT)):
        inside = (at >= begin[..., None]) & (at < end[..., None])
        # A query or key that keeps nothing may have any stretch where nothing is.
        assert torch.equal(inside & kept.any(-1, keepdim=True), kept)

    def rows(queries):
        kept = wanted[:, queries]
        return kept, torch.ones_like(kept)

    evaluated = spans_of(rows, BATCH, LENGTH, torch.device("cpu"))
    assert torch.equal(found, evaluated)


def test_what_is_not_transformers_own_is_left_to_be_evaluated():
    def own(batch, head, query, key):
        return key <= query

    valid = VALID["all"]
    odd = masking_utils.and_masks(own, masking_utils.causal_mask_function)
    either = masking_utils.or_masks(own, masking_utils.causal_mask_function)
    back = masking_utils.packed_sequence_mask_function(PACKED.flip(1))
    lost = masking_utils.remap_positions_for_packed_sequence(
        masking_utils.causal_mask_function, POSITIONS
    )
    for function in (own, odd, either, back, lost):
        assert _mask_functions.spans_of_function(function, valid, BATCH, LENGTH) is None
    holes = valid.clone()
    holes[0, 10:20] = False
    causal = masking_utils.causal_mask_function
    assert _mask_functions.spans_of_function(causal, holes, BATCH, LENGTH) is None
    # Positions that are not what the sequences' numbers say are seen by asking the function.
    wrong = masking_utils.remap_positions_for_packed_sequence(causal, POSITIONS.flip(1))
    wrong = masking_utils.and_masks(wrong, masking_utils.packed_sequence_mask_function(PACKED))
    assert _mask_functions.spans_of_function(wrong, valid, BATCH, LENGTH) is None


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operator makes."""

    elements, name = 0, ""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().nbytes() > 8 * self.elements:
                self.elements, self.name = x.untyped_storage().nbytes() // 8, str(function)
        return made


def llama(implementation):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, max_position_embeddings=1 << 15,
    )
    config._attn_implementation = implementation
    return LlamaForCausalLM(config).eval()


def long_row(*lengths):
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    ids = torch.randint(1, 50, positions.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "position_ids": positions, "use_cache": False}


def near(length, block=64, band=4):
    rows = torch.arange(length // block)
    return spion.Pattern.from_bits((rows[:, None] - rows).abs() < band, length, block=block)


@pytest.mark.parametrize("own_length", [True, False])
def test_long_packed_rows_take_no_memory_of_their_square(own_length):
    """A row of 16384 with the pattern of the whole row, or one that is cut to each sequence."""
    spion.transformers.register()
    model, batch = llama("spion"), long_row(250, 1, 6000, 133, 10000)
    spion.transformers.set_patterns(model, near(16384 if own_length else 10240))
    with torch.no_grad(), Largest() as largest:
        logits = model(**batch).logits
    assert torch.isfinite(logits).all()
    assert 16384 * 16 <= largest.elements <= 16384 * 64, largest.name  # a square is 16384 * 16384
    for begin, length in ((0, 250), (6251, 133)):  # within the pattern's band, so all of it
        alone = llama("eager")(batch["input_ids"][:, begin : begin + length], use_cache=False)
        found = logits[:, begin : begin + length]
        # The band is four blocks of the row, or of the sequence; those it has whole are 250 long at most.
        torch.testing.assert_close(found, alone.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own_length", [True, False])
def test_logits_of_long_packed_rows_are_those_of_eager(own_length):
    spion.transformers.register()
    model, batch = llama("spion"), long_row(700, 30, 1, 1317)
    length = 2048 if own_length else 1344
    spion.transformers.set_patterns(model, spion.Pattern.full(length, block=64))
    with torch.no_grad():
        found, wanted = model(**batch).logits, llama("eager")(**batch).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
