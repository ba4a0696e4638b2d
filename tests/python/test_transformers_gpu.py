"""Stock models of Hugging Face on a GPU, in float32: tests of test_transformers.py with all tensors there.
Skipped where there is none."""

import pytest
import torch
from test_transformers import (  # noqa: F401
    registered,
    test_a_decoder_attends_to_another_number_of_keys,
    test_a_decoder_learns,
    test_a_decoder_learns_from_sequences_end_to_end,
    test_layers_of_modern_bert,
    test_logits_are_those_of_eager,
    test_logits_of_decoders,
    test_logits_of_sequences_end_to_end,
    test_packed_sequences_of_a_decoder,
    test_patterns_of_layers,
    test_probabilities_are_dropped_while_it_trains,
    test_scores_of_each_layer,
    test_scores_of_layers,
    test_sequences_end_to_end_need_no_positions,
    test_sinks_learn,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: there is no GPU")


@pytest.fixture(autouse=True)
def on_a_gpu():
    torch.set_default_device("cuda")
    yield
    torch.set_default_device(None)
