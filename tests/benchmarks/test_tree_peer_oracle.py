"""The tree peer: a copied and grown cache gives what its whole text gives."""

from __future__ import annotations

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from dendrite_jax.benchmarks.tree import peer as tree_peer


def test_children_of_copied_rows_continue_their_parents() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval()
    texts = torch.randint(64, (3, 9))
    parents = torch.tensor([2, 2, 0])
    with torch.inference_mode():
        cache = DynamicCache(config=config)
        logits = model(texts, past_key_values=cache, logits_to_keep=1).logits
        grown, logits, tokens = tree_peer._grow(model, cache, logits, parents, 4)
        whole = torch.cat([texts[parents], tokens], dim=1)
        torch.testing.assert_close(logits[:, -1], model(whole).logits[:, -1], rtol=1e-4, atol=1e-5)
    assert tokens.shape == (3, 4)
    assert grown.get_seq_length() == 13
    assert cache.get_seq_length() == 9
