"""Stock models of Hugging Face with attn_implementation="spion", on the host."""

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
    generator = torch.Generator(torch.get_default_device()).manual_seed(1)
    return torch.randint(1, 50, (batch, LENGTH), generator=generator)


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


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_layers_of_modern_bert(kind):
    ids, changes = tokens(), {"layer_types": [kind] * 2, "local_attention": 16}
    with torch.no_grad():
        wanted = modern_bert("eager", **changes)(ids).logits
        found = modern_bert("spion", **changes)(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def decoder(implementation, kind="Llama", **changes):
    """Two layers of 4 query heads that share 2 heads of keys."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        **changes,
    )
    config._attn_implementation = implementation
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


# Its scores are large enough for the cap to matter.
GEMMA = {"sliding_window": 20, "head_dim": 16, "query_pre_attn_scalar": 1, "initializer_range": 0.1}
DECODERS = [
    ("Llama", {}),
    ("Mistral", {"sliding_window": 20}),
    ("Gemma2", {**GEMMA, "attn_logit_softcapping": 1.0}),
    ("GptOss", {"sliding_window": 20, "head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 2}),
]


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("kind, changes", DECODERS)
def test_logits_of_decoders(kind, changes, padding):
    ids = tokens()
    mask = torch.ones_like(ids)
    if padding != "none":
        mask[0, 70:] = 0
        mask[2, 5:] = 0
    if padding == "left":
        mask = mask.flip(-1)
    with torch.no_grad():
        wanted = decoder("eager", kind, **changes)(ids, attention_mask=mask).logits
        found = decoder("spion", kind, **changes)(ids, attention_mask=mask).logits
    kept = mask.bool()  # what a padded query is given means nothing
    torch.testing.assert_close(found[kept], wanted[kept], rtol=1e-4, atol=1e-4)


def test_packed_sequences_of_a_decoder():
    ids = tokens(2)
    positions = torch.cat([torch.arange(40), torch.arange(LENGTH - 40)]).expand(2, -1)
    with torch.no_grad():
        wanted = decoder("eager")(ids, position_ids=positions, use_cache=False).logits
        found = decoder("spion")(ids, position_ids=positions, use_cache=False).logits
        alone = decoder("spion")(ids[:, 40:], use_cache=False).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 40:], alone, rtol=1e-4, atol=1e-4)


LENGTHS = (40, 1, 23, 32)  # of packed sequences: those of one row


def packed(*, said=True, lengths=LENGTHS):
    """What DataCollatorWithFlattening gives: ids [1, T], positions, and cu_seq_lens."""
    collate = transformers.DataCollatorWithFlattening(
        return_tensors="pt", return_flash_attn_kwargs=said
    )
    ids = tokens(1)[0, : sum(lengths)].split(list(lengths))
    batch = collate([{"input_ids": x} for x in ids])
    batch.pop("labels")
    like = ids[0]  # on the default device
    batch = {name: x.to(like.device) if torch.is_tensor(x) else x for name, x in batch.items()}
    return {**batch, "use_cache": False}


def bounds_free(batch):
    """What models are given that compute masks of positions."""
    return {name: x for name, x in batch.items() if "_q" not in name and "_k" not in name}


@pytest.mark.parametrize("kind, changes", DECODERS)
def test_logits_of_sequences_end_to_end(kind, changes):
    batch = packed()
    with torch.no_grad():
        eager = decoder("eager", kind, **changes)
        ids = batch["input_ids"].split(list(LENGTHS), 1)
        wanted = torch.cat([eager(x, use_cache=False).logits for x in ids], 1)
        if kind != "GptOss":  # whose eager attention does not separate what positions do
            together = eager(**bounds_free(batch)).logits
            torch.testing.assert_close(together, wanted, rtol=1e-4, atol=1e-4)
        model = decoder("spion", kind, **changes)
        found = model(**batch).logits
        spion.transformers.set_patterns(model, spion.Pattern.full(64, block=32))
        cut = model(**batch).logits
        by_positions = model(**bounds_free(batch)).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cut, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(by_positions, cut)


def test_sequences_end_to_end_need_no_positions():
    """Where no mask separates them, cu_seq_lens does; and each is cut from one pattern."""
    batch = packed()
    batch["position_ids"] = torch.arange(sum(LENGTHS))[None]  # which rotate, and mask nothing
    pattern = spion.Pattern.from_bits(np.array([[1, 0], [0, 1]], np.uint8), 64, block=32)
    model = decoder("spion")
    spion.transformers.set_patterns(model, pattern)
    rows = model(**batch, output_hidden_states=True).logits.detach()
    q, k, v = (torch.randn(1, heads, 96, 16) for heads in (4, 2, 2))
    layer = model.model.layers[0].self_attn
    given = {name: batch[name] for name in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q")}
    o, _ = spion.transformers.attention_forward(layer, q, k, v, None, **given)
    begin = 0
    for length in LENGTHS:
        end = begin + length
        own = spion.Pattern.from_bits(pattern.bits()[: -(-length // 32), : -(-length // 32)], length, block=32)
        alone = st_attention(q[:, :, begin:end], k[:, :, begin:end], v[:, :, begin:end], own)
        torch.testing.assert_close(o[:, begin:end], alone.transpose(1, 2))
        begin = end
    assert torch.isfinite(rows).all()


def st_attention(q, k, v, pattern):
    return spion.torch.attention(q, k, v, pattern, causal=True)


def test_a_decoder_learns_from_sequences_end_to_end():
    batch, gradients = packed(), []
    for implementation in ("spion", "eager"):
        model = decoder(implementation).train()
        given = batch if implementation == "spion" else bounds_free(batch)
        model(**given, labels=batch["input_ids"]).loss.backward()
        gradients.append([x.grad for x in model.parameters()])
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_sequences_that_do_not_fit_are_refused():
    model, batch = decoder("spion"), packed()

    def refuses(words, **changes):
        with pytest.raises(ValueError, match=words), torch.no_grad():
            model(**{**batch, **changes})

    twice = batch["input_ids"].expand(2, -1)
    refuses("the batch is 2: packed sequences lie in one row", input_ids=twice)
    refuses("cu_seq_lens_k is not cu_seq_lens_q", cu_seq_lens_k=batch["cu_seq_lens_k"] - 1)
    refuses("keys are padded: leave out the attention mask",
            attention_mask=(torch.arange(96) < 90)[None].long())
    refuses("cu_seqlens ends with 95 and the tensors have 96 rows",
            cu_seq_lens_q=batch["cu_seq_lens_q"].clamp(max=95), cu_seq_lens_k=None)
    spion.transformers.set_patterns(model, spion.Pattern.full(32, block=32))
    refuses("a packed sequence has 40 positions and the layer's pattern is for 32 queries")


def test_a_decoder_learns():
    model, ids = decoder("spion").train(), tokens()
    model(ids, labels=ids).loss.backward()
    eager = decoder("eager").train()
    eager(ids, labels=ids).loss.backward()
    for ours, theirs in zip(model.parameters(), eager.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


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
    holes = torch.ones_like(ids)
    holes[0, 10:20] = 0
    with pytest.raises(ValueError, match="leaves gaps between the keys"):
        bert("spion")(ids, attention_mask=holes)
    model = decoder("spion")
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="queries attend to"):
        model(ids[:, :1], past_key_values=cache)
    module = torch.nn.Module()
    q = torch.randn(1, 4, 32, 16)
    with pytest.raises(ValueError, match="padding masks"):
        spion.transformers.attention_forward(module, q, q, q, torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match="asks for a sliding window"):
        spion.transformers.attention_forward(module, q, q, q, None, sliding_window=4)
    with pytest.raises(ValueError, match="asks for position_bias"):
        spion.transformers.attention_forward(module, q, q, q, None, position_bias=q)


def test_probabilities_are_dropped_while_it_trains():
    ids, model = tokens(), bert("spion", attention_probs_dropout_prob=0.2, hidden_dropout_prob=0.0)
    evaluated, eager = model(ids).logits, bert("eager", hidden_dropout_prob=0.0)(ids).logits
    torch.testing.assert_close(evaluated, eager, rtol=1e-4, atol=1e-4)
    model.train()
    torch.manual_seed(1)
    first = model(ids).logits
    assert not torch.equal(model(ids).logits, first)
    torch.manual_seed(1)
    assert torch.equal(model(ids).logits, first)


def test_a_decoder_attends_to_another_number_of_keys():
    def bart(implementation):
        torch.manual_seed(0)
        config = transformers.BartConfig(
            vocab_size=50,
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=128,
        )
        config._attn_implementation = implementation
        return transformers.BartForConditionalGeneration(config).eval()

    ids, mask = tokens(2), torch.ones(2, LENGTH, dtype=torch.int64)
    mask[1, 30:] = 0
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :20]}
    with torch.no_grad():
        wanted = bart("eager")(**given, use_cache=False).logits
        found = bart("spion")(**given, use_cache=False).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_sinks_learn():
    changes = {"sliding_window": 20, "head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 2}
    ids, gradients = tokens(), []
    for implementation in ("spion", "eager"):
        model = decoder(implementation, "GptOss", **changes)
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([layer.self_attn.sinks.grad for layer in model.model.layers])
    for ours, theirs in zip(*gradients):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)

def test_scores_of_layers():
    """An expression that is what Gemma-2 caps scores by, for rows and for sequences end to end."""
    batch = packed()
    for given in ({"input_ids": tokens()}, batch, bounds_free(batch)):
        eager = bounds_free(given)
        with torch.no_grad():
            wanted = decoder("eager", "Gemma2", **GEMMA, attn_logit_softcapping=1.0)(**eager).logits
            model = decoder("spion", "Gemma2", **GEMMA, attn_logit_softcapping=None)
            plain = model(**given).logits
            spion.transformers.set_scores(model, "tanh(score)", "1-tanh(score)*tanh(score)")
            found = model(**given).logits
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(plain, wanted, atol=1e-3)


def test_scores_of_each_layer():
    model, ids = decoder("spion"), tokens()
    spion.transformers.set_scores(model, ["", "score-0.1*fabs(q-k)"])
    first = model(ids).logits
    spion.transformers.set_scores(model, "")
    assert not torch.allclose(model(ids).logits, first, atol=1e-4)
    torch.testing.assert_close(model(ids).logits, decoder("eager")(ids).logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="3 scores were given for 2 attention layers"):
        spion.transformers.set_scores(model, [""] * 3)
    spion.transformers.set_scores(model, "sin(score)")
    with pytest.raises(ValueError, match="'sin'"):
        model(ids)
