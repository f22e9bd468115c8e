"""Monte Carlo tree search: an abstract core, and the search on the engine."""

from dendrite_jax.search.mcts.expansion import (
    Prior,
    ValuePrior,
    Worth,
    even_prior,
    likelihood_prior,
)
from dendrite_jax.search.mcts.rules import Gumbel, Puct, Rule, Uct
from dendrite_jax.search.mcts.search import (
    MctsConfig,
    MctsLoop,
    mcts,
    most_visited,
    read,
    reroot,
    result,
    simulate,
    start,
)
from dendrite_jax.search.mcts.tokens import TopTokens

__all__ = [
    "Gumbel",
    "MctsConfig",
    "MctsLoop",
    "Prior",
    "Puct",
    "Rule",
    "TopTokens",
    "Uct",
    "ValuePrior",
    "Worth",
    "even_prior",
    "likelihood_prior",
    "mcts",
    "most_visited",
    "read",
    "reroot",
    "result",
    "simulate",
    "start",
]
