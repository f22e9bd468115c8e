"""The core against mctx: the same visits and values, simulation by simulation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.benchmarks.mcts.toy import Toy
from dendrite_jax.search.monte_carlo import Gumbel, Puct, Rule, Uct
from dendrite_jax.search.monte_carlo.config import SimulationConfig
from dendrite_jax.search.monte_carlo.simulation import Simulations, begin, run
from dendrite_jax.search.monte_carlo.tree import MctsTree

PROBLEMS, CHILDREN, SIMULATIONS = 3, 4, 200
TOLERANCE = 1e-5
"""Of a mean of at most 200 values in [0, 1]; mctx updates means, we divide sums, in float32."""
TOY = Toy.random(PROBLEMS, CHILDREN, seed=4)


class Visited(NamedTuple):
    """A node by its path: how often it was visited and the mean of what was backed up."""

    visits: int
    value: float


def ours(tree: MctsTree, problem: int) -> dict[tuple[int, ...], Visited]:
    """The visited nodes of one of our trees by the moves that lead to them."""
    first_child, visits, worth_sum = (
        field[problem].tolist() for field in (tree.first_child, tree.visits, tree.worth_sum)
    )
    found: dict[tuple[int, ...], Visited] = {}

    def walk(node: int, path: tuple[int, ...]) -> None:
        if visits[node]:
            found[path] = Visited(visits[node], worth_sum[node] / visits[node])
        for move in range(tree.num_children if first_child[node] >= 0 else 0):
            walk(first_child[node] + move, (*path, move))

    walk(0, ())
    return found


def theirs(tree: Any, problem: int, simulations: int) -> dict[tuple[int, ...], Visited]:
    """The same of an mctx tree after its first simulations: the n-th of them makes node n."""
    parents, moves, raw_values = (
        field[problem].tolist()
        for field in (tree.parents, tree.action_from_parent, tree.raw_values)
    )
    paths: list[tuple[int, ...]] = [()]
    values: dict[tuple[int, ...], list[float]] = {}
    for node in range(simulations + 1):
        if node:
            paths.append((*paths[parents[node]], moves[node]))
        for length in range(len(paths[node]) + 1):
            values.setdefault(paths[node][:length], []).append(raw_values[node])
    return {path: Visited(len(below), sum(below) / len(below)) for path, below in values.items()}


def assert_same(found: MctsTree, expected: Any, simulations: int) -> None:
    for problem in range(found.parent.shape[0]):
        mine, yours = ours(found, problem), theirs(expected, problem, simulations)
        assert mine.keys() == yours.keys()
        for path, node in yours.items():
            assert mine[path].visits == node.visits
            assert mine[path].value == pytest.approx(node.value, abs=TOLERANCE)


@partial(jax.jit, static_argnames="config")
def search(toy: Toy, noise: jax.Array, simulations: jax.Array, config: SimulationConfig) -> Any:
    """The last `simulations` of the config's, from a fresh tree, with given noise at the root."""
    tree = MctsTree.of_roots(
        PROBLEMS, config.num_nodes, config.num_children, root_worth=toy.values[:, 0]
    )
    start = begin(tree, jax.random.split(jax.random.key(0), PROBLEMS), config)
    spent = jnp.full(PROBLEMS, config.num_simulations - simulations)
    start = start._replace(
        noise=noise, progress=start.progress._replace(simulations=spent.astype(jnp.int32))
    )
    states = jnp.zeros((PROBLEMS, config.num_nodes), jnp.int32)
    return run(toy.expand, states, start, config)[1]


mctx_search = jax.jit(Toy.mctx_search, static_argnums=(2, 3))
NO_NOISE = jnp.zeros((PROBLEMS, CHILDREN))


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Puct(), Puct(c_init=0.3, c_base=20.0), Uct(0.5)], ids=str)
def test_every_number_of_simulations_gives_the_tree_of_mctx(rule: Rule) -> None:
    config = SimulationConfig(num_simulations=SIMULATIONS, num_children=CHILDREN, rule=rule)
    expected = jax.device_get(mctx_search(TOY, jax.random.key(0), SIMULATIONS, rule))
    for simulations in range(1, SIMULATIONS + 1):
        found: Simulations = jax.device_get(search(TOY, NO_NOISE, simulations, config))
        assert_same(found.tree, expected, simulations)
    # The reading of their tree agrees with their own counts.
    for problem in range(PROBLEMS):
        root = theirs(expected, problem, SIMULATIONS)[()]
        assert root.visits == expected.node_visits[problem, 0]
        assert root.value == pytest.approx(expected.node_values[problem, 0], abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("simulations", "rule"),
    [
        (1, Gumbel()),
        (7, Gumbel(max_considered=3)),
        (32, Gumbel(scale=0.0)),
        (SIMULATIONS, Gumbel(max_considered=3)),
    ],
)
def test_gumbel_selection_gives_the_tree_of_mctx(simulations: int, rule: Gumbel) -> None:
    key = jax.random.key(simulations)
    noise = jax.random.gumbel(jax.random.split(key)[1], NO_NOISE.shape)  # as the policy draws it
    config = SimulationConfig(num_simulations=simulations, num_children=CHILDREN, rule=rule)
    expected = jax.device_get(mctx_search(TOY, key, simulations, rule))
    found = jax.device_get(search(TOY, rule.scale * noise, simulations, config))
    assert_same(found.tree, expected, simulations)


@pytest.mark.slow
def test_dirichlet_noise_gives_the_tree_of_mctx() -> None:
    rule, key = Puct(dirichlet_fraction=0.4, dirichlet_alpha=0.5), jax.random.key(3)
    config = SimulationConfig(num_simulations=SIMULATIONS, num_children=CHILDREN, rule=rule)
    alpha = jnp.full(CHILDREN, rule.dirichlet_alpha)
    drawn = jax.random.dirichlet(jax.random.split(key, 3)[1], alpha, (PROBLEMS,))
    expected = jax.device_get(mctx_search(TOY, key, SIMULATIONS, rule))
    found = jax.device_get(search(TOY, jnp.log(drawn), SIMULATIONS, config))
    assert_same(found.tree, expected, SIMULATIONS)
    quiet = jax.device_get(search(TOY, NO_NOISE, SIMULATIONS, replace(config, rule=Puct())))
    assert np.any(quiet.tree.visits != found.tree.visits)


def test_an_expansion_is_made_at_the_second_visit_only() -> None:
    config = SimulationConfig(num_simulations=SIMULATIONS, num_children=CHILDREN)
    found = jax.device_get(search(TOY, NO_NOISE, SIMULATIONS, config))
    expanded = found.tree.first_child >= 0
    np.testing.assert_array_equal(expanded, found.tree.visits > 1)
    np.testing.assert_array_equal(np.sum(expanded, axis=1), found.progress.expansions)
    np.testing.assert_array_equal(found.progress.simulations, SIMULATIONS)
    assert not np.any(found.progress.at_capacity)
