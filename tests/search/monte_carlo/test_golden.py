"""Golden trees of the toy environment, one a rule: two problems that take different ways."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dendrite_jax.benchmarks.mcts.toy import Toy
from dendrite_jax.search.monte_carlo import Gumbel, Puct, Rule, Uct
from dendrite_jax.search.monte_carlo.config import SimulationConfig

TOY = Toy.random(problems=2, num_children=3, seed=1)
SIMULATIONS = 12
# For each problem: the nodes in the order of their expansion, the visits of all, the root's sum.
GOLDEN: list[tuple[Rule, list[tuple[list[int], str, float]]]] = [
    (
        Puct(),
        [
            (
                [0, 2, 1, 3, 12, 5, 8],
                "13 4 4 4 0 2 1 0 2 1 1 0 2 0 0 1 0 0 1 1 0 0",
                7.089191,
            ),
            (
                [0, 2, 5, 7, 12, 15, 17, 1, 9],
                "13 2 10 0 0 9 0 6 0 2 0 0 5 0 1 3 0 2 0 0 1 0 0 0 1 0 0 1",
                7.719519,
            ),
        ],
    ),
    (
        Uct(),
        [
            ([0, 2, 3, 1], "13 4 4 4 1 1 1 1 1 1 1 1 1", 8.460960),
            ([0, 3, 2, 1], "13 4 4 4 1 1 1 1 1 1 1 1 1", 8.155406),
        ],
    ),
    (
        Gumbel(max_considered=2, scale=0.0),
        [
            (
                [0, 2, 1, 5, 8, 4],
                "13 6 6 0 2 2 1 1 3 1 0 0 1 1 1 0 0 1 0",
                7.188208,
            ),
            (
                [0, 2, 1, 9, 5, 12],
                "13 6 6 0 1 3 1 0 0 5 1 1 2 1 0 1 0 0 1",
                6.746155,
            ),
        ],
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "problems"), GOLDEN, ids=["puct", "uct", "gumbel"])
def test_golden_tree(rule: Rule, problems: list[tuple[list[int], str, float]]) -> None:
    config = SimulationConfig(num_simulations=SIMULATIONS, num_children=3, rule=rule)
    keys = jax.random.split(jax.random.key(0), 2)
    tree = jax.device_get(jax.jit(Toy.search, static_argnums=2)(TOY, keys, config)).tree
    for problem, (expanded, visits, total) in enumerate(problems):
        used = int(tree.num_nodes[problem])
        assert tree.visits[problem, :used].tolist() == [int(count) for count in visits.split()]
        assert tree.parent[problem, 1:used].tolist() == np.repeat(expanded, 3).tolist()
        assert tree.worth_sum[problem, 0] == pytest.approx(total, abs=1e-5)
        assert not np.any(tree.visits[problem, used:])
