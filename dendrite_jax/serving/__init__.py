"""The stateful border: text in and out, input checks, compiled functions, streaming."""

from dendrite_jax.serving.compilation import enable_compilation_cache
from dendrite_jax.serving.engine import Completion, Engine
from dendrite_jax.serving.exit_on_miss import (
    add_wanted_edges,
    complete_generation,
    complete_search,
    resume_grammar,
)
from dendrite_jax.serving.grammars import compile_or_start
from dendrite_jax.serving.programs import Programs, compiled
from dendrite_jax.serving.prompts import Started, start
from dendrite_jax.serving.search_host import compile_search, search_on_host
from dendrite_jax.serving.text_search import ThoughtShape, search_from, text_search

__all__ = [
    "Completion",
    "Engine",
    "Programs",
    "Started",
    "ThoughtShape",
    "add_wanted_edges",
    "compile_or_start",
    "compile_search",
    "compiled",
    "complete_generation",
    "complete_search",
    "enable_compilation_cache",
    "resume_grammar",
    "search_from",
    "search_on_host",
    "start",
    "text_search",
]
