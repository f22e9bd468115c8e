"""Beam search by transformers' `generate`, in float64; needs torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dendrite_jax.search import BeamSearchConfig
from engine.programs import DECODER_CASE, DECODER_SEED
from models import hf_oracle
from models.parity_cases import model_folder
from search.beam.beam_cases import PROMPTS
from search.beam.beam_oracle import Beam


def hf_beams(config: BeamSearchConfig, stop_tokens: Sequence[int]) -> list[list[Beam]]:
    """The beams of all PROMPTS, best first."""
    with model_folder(DECODER_CASE, DECODER_SEED) as folder:
        model = hf_oracle.load(folder).double()
    prompts = torch.tensor(PROMPTS)
    model.generation_config.update(bos_token_id=None, eos_token_id=None)
    out = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        num_beams=config.width,
        num_return_sequences=config.width,
        max_new_tokens=config.max_new_tokens,
        length_penalty=config.length_penalty,
        early_stopping=config.early_stopping,
        do_sample=False,
        eos_token_id=list(stop_tokens) or None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    rows = out.sequences[:, prompts.shape[1] :].tolist()
    beams = [
        Beam(_until_stop(row, stop_tokens), score=score)
        for row, score in zip(rows, out.sequences_scores.tolist(), strict=True)
    ]
    return [beams[first : first + config.width] for first in range(0, len(beams), config.width)]


def _until_stop(tokens: list[int], stop_tokens: Sequence[int]) -> tuple[int, ...]:
    stops = np.flatnonzero(np.isin(tokens, stop_tokens))
    return tuple(tokens[: stops[0] + 1] if stops.size else tokens)
