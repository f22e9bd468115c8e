"""Monte Carlo tree search: an abstract core (`simulation`), and the search on the engine."""

from dendrite_jax.search.monte_carlo.config import MctsConfig, SimulationConfig
from dendrite_jax.search.monte_carlo.expansion import (
    MctsPieces,
    Prior,
    ValuePrior,
    Worth,
    even_prior,
    likelihood_prior,
)
from dendrite_jax.search.monte_carlo.loop import (
    MctsLoop,
    advance,
    finish,
    mcts,
    most_visited,
    read,
    reroot,
    start,
    unfinished,
)
from dendrite_jax.search.monte_carlo.selection import Gumbel, Puct, Rule, Uct
from dendrite_jax.search.monte_carlo.tokens import TopTokens
from dendrite_jax.search.monte_carlo.tree import MctsTree

__all__ = [
    "Gumbel",
    "MctsConfig",
    "MctsLoop",
    "MctsPieces",
    "MctsTree",
    "Prior",
    "Puct",
    "Rule",
    "SimulationConfig",
    "TopTokens",
    "Uct",
    "ValuePrior",
    "Worth",
    "advance",
    "even_prior",
    "finish",
    "likelihood_prior",
    "mcts",
    "most_visited",
    "read",
    "reroot",
    "start",
    "unfinished",
]
