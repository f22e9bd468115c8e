"""Beam search over tokens, which needs no thoughts and no scorer."""

from dendrite_jax.search.beam.config import BeamSearchConfig
from dendrite_jax.search.beam.token_beams import BeamLoop, BeamPieces, beam_search

__all__ = ["BeamLoop", "BeamPieces", "BeamSearchConfig", "beam_search"]
