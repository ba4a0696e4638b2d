"""A stock encoder of Hugging Face with attn_implementation="spion", on the host."""

import numpy as np
import pytest
import torch
import transformers

import spion
import spion.transformers

LENGTH = 96


@pytest.fixture(scope="module", autouse=True)
def registered():
    spion.transformers.register()


def bert(implementation, **changes):
    torch.manual_seed(0)
    settings = {
        "vocab_size": 50,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "attention_probs_dropout_prob": 0.0,
        **changes,
    }
    config = transformers.BertConfig(**settings)
    config._attn_implementation = implementation
    model = transformers.BertForMaskedLM(config)
    return model.eval()


def modern_bert(implementation, **changes):
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=0,
        **changes,
    )
    config._attn_implementation = implementation
    return transformers.ModernBertForMaskedLM(config).eval()


def tokens(batch=3):
    return torch.randint(1, 50, (batch, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_those_of_eager(padded):
    ids = tokens()
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 70:] = 0
        mask[2, 5:] = 0
    with torch.no_grad():
        wanted = bert("eager")(ids, attention_mask=mask).logits
        found = bert("spion")(ids, attention_mask=mask).logits
        without = bert("spion")(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert padded != torch.equal(found, without)  # the mask was seen


def test_global_layers_of_modern_bert():
    ids, changes = tokens(), {"layer_types": ["full_attention"] * 2}
    with torch.no_grad():
        wanted = modern_bert("eager", **changes)(ids).logits
        found = modern_bert("spion", **changes)(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="causal, sliding or other mask|sliding_window"):
        modern_bert("spion", layer_types=["sliding_attention"] * 2)(ids)


def test_patterns_of_layers():
    model, ids = bert("spion"), tokens()
    diagonal = spion.Pattern.from_bits(np.eye(3, dtype=np.uint8), LENGTH, block=32)
    with torch.no_grad():
        full = model(ids).logits
        spion.transformers.set_patterns(model, [diagonal, spion.Pattern.full(LENGTH, block=32)])
        sparse = model(ids).logits
    assert not torch.allclose(full, sparse, atol=1e-3)
    with pytest.raises(ValueError, match="3 patterns were given for 2"):
        spion.transformers.set_patterns(model, [diagonal] * 3)
    model(ids).logits.square().mean().backward()
    gradient = model.bert.encoder.layer[0].attention.self.query.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


def test_what_is_not_there_is_refused():
    ids = tokens()
    left = torch.ones_like(ids)
    left[0, :10] = 0
    with pytest.raises(ValueError, match="padding on the right"):
        bert("spion")(ids, attention_mask=left)
    with pytest.raises(ValueError, match="causal"):
        bert("spion", is_decoder=True)(ids)
    with pytest.raises(ValueError, match="drops out probabilities"):
        bert("spion", attention_probs_dropout_prob=0.1).train()(ids)
    module = torch.nn.Module()
    q, kv = torch.randn(1, 4, 32, 16), torch.randn(1, 2, 32, 16)
    with pytest.raises(ValueError, match="grouped-query"):
        spion.transformers.attention_forward(module, q, kv, kv, None)
    with pytest.raises(ValueError, match=r"padding masks \[B, L\] alone"):
        spion.transformers.attention_forward(module, q, q, q, torch.zeros(1, 1, 32, 32))
