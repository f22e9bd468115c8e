"""The core against plain Python: batches, virtual loss, dead ends, bounds, batches of problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dendrite_jax.search import NO_NODE
from dendrite_jax.search.monte_carlo import Gumbel, Puct, Uct
from dendrite_jax.search.monte_carlo.children import Children
from dendrite_jax.search.monte_carlo.config import SimulationConfig
from dendrite_jax.search.monte_carlo.rerooting import keep_below
from dendrite_jax.search.monte_carlo.simulation import Simulations, begin, run
from dendrite_jax.search.monte_carlo.tree import MctsTree
from search.monte_carlo.oracle import Child, Doubt, Node, Search

pytestmark = pytest.mark.slow

PROBLEMS, STATES, TOLERANCE = 4, 61, 1e-5
CONFIGS = [
    SimulationConfig(num_simulations=40, num_children=3, rule=Uct(0.7)),
    SimulationConfig(
        num_simulations=40, num_children=4, batch=3, virtual_loss=0.5, dead_value=-0.25
    ),
    SimulationConfig(num_simulations=60, num_children=2, num_expansions=9, batch=2, rule=Uct()),
    SimulationConfig(num_simulations=50, num_children=3, tree_expansions=11, batch=4),
]


class World(struct.PyTreeNode):
    """States with random children, some missing, some final, a few short of room."""

    prior: jax.Array  # f32[problems, states, num_children], −inf where there is no child
    value: jax.Array  # f32[problems, states]
    terminal: jax.Array  # bool[problems, states]
    short: jax.Array  # bool[problems, states], its expansion says that it had too little room

    @classmethod
    def random(cls, seed: int, num_children: int, missing: float, short: float) -> World:
        generator = np.random.default_rng(seed)
        shape = (PROBLEMS, STATES)
        prior = generator.normal(size=(*shape, num_children)).astype(np.float32)
        prior[generator.uniform(size=prior.shape) < missing] = -np.inf
        prior[:3, 0, 0] = 1.0  # so that most problems have a child to begin with
        return cls(
            jnp.asarray(prior),
            jnp.asarray(generator.uniform(size=shape).astype(np.float32)),
            jnp.asarray(generator.uniform(size=shape) < missing / 2),
            jnp.asarray(generator.uniform(size=shape) < short),
        )

    def expand(
        self, states: jax.Array, tree: MctsTree, nodes: jax.Array, first_child: jax.Array
    ) -> tuple[jax.Array, Children]:
        del tree
        problem = jnp.arange(nodes.shape[0])[:, None]
        state = states[problem, jnp.maximum(nodes, 0)]
        moves = jnp.arange(self.prior.shape[2])
        reached = (state[..., None] * moves.size + moves + 1) % STATES
        rows = jnp.where((nodes == NO_NODE)[..., None], states.shape[1], first_child[..., None])
        states = states.at[problem[..., None], rows + moves].set(reached, mode="drop")
        return states, Children(
            prior_logits=self.prior[problem, state],
            made=jnp.ones(reached.shape, bool),
            worth=self.value[problem[..., None], reached],
            terminal=self.terminal[problem[..., None], reached],
            out_of_room=self.short[problem, state],
        )


def oracle(world: World, problem: int, config: SimulationConfig) -> Search:
    """The same search of one problem."""
    prior, value, terminal, short = (
        np.asarray(field[problem])
        for field in (world.prior, world.value, world.terminal, world.short)
    )

    def grow(node: Node) -> tuple[Sequence[Child], bool]:
        first = node.payload * config.num_children + 1
        reached = [(first + move) % STATES for move in range(config.num_children)]
        children = [
            Child(float(prior[node.payload, move]), float(value[s]), bool(terminal[s]), s)
            for move, s in enumerate(reached)
        ]
        return children, bool(short[node.payload])

    return Search.of(config, grow, payload=0)


@partial(jax.jit, static_argnames="config")
def search(world: World, config: SimulationConfig) -> tuple[jax.Array, Simulations]:
    """A search from state 0 of every problem, and the states of its nodes."""
    problems = world.value.shape[0]
    tree = MctsTree.of_roots(problems, config.num_nodes, config.num_children)
    states = jnp.zeros((problems, config.num_nodes), jnp.int32)
    return run(world.expand, states, begin(tree, KEYS[:problems], config), config)


@partial(jax.jit, static_argnames="config")
def search_on(
    world: World, states: jax.Array, tree: MctsTree, action: jax.Array, config: SimulationConfig
) -> tuple[tuple[MctsTree, jax.Array], tuple[jax.Array, Simulations]]:
    """Re-roots a search, and searches on from there."""
    tree, origin = keep_below(tree, action)
    states = jnp.take_along_axis(states, jnp.maximum(origin, 0), axis=1)
    return (tree, origin), run(world.expand, states, begin(tree, KEYS, config), config)


KEYS = jax.random.split(jax.random.key(0), PROBLEMS)


def assert_tree(tree: MctsTree, problem: int, expected: Search) -> None:
    """Every row of a tree is as plain Python has it."""
    nodes = expected.nodes()
    assert tree.num_nodes[problem] == len(nodes) == expected.num_nodes
    assert np.all(tree.visits[problem, len(nodes) :] == 0)
    for node in nodes:
        row = (problem, node.number)
        assert tree.parent[row] == (node.parent.number if node.parent else NO_NODE)
        assert tree.first_child[row] == (node.made[0].number if node.children else NO_NODE)
        assert tree.visits[row] == node.visits
        assert tree.worth_sum[row] == pytest.approx(node.total, abs=TOLERANCE * (1 + node.visits))
        assert tree.worth[row] == pytest.approx(node.value, abs=TOLERANCE)
        assert tree.closed[row] == node.terminal
        assert tree.prior_logits[row] == node.prior


def assert_search(found: Simulations, problem: int, expected: Search) -> None:
    assert_tree(found.tree, problem, expected)
    assert found.progress.simulations[problem] == expected.simulations
    assert found.progress.expansions[problem] == expected.expansions
    assert found.progress.at_capacity[problem] == expected.at_capacity


DOUBTS = [HealthCheck.filter_too_much]
"""One doubtful problem of four is enough to leave an example out."""
WORLDS = {
    "seed": st.integers(0, 2**31),
    "missing": st.sampled_from([0.0, 0.2, 0.5]),
    "short": st.sampled_from([0.0, 0.05]),
}


@pytest.mark.parametrize("config", CONFIGS)
@given(**WORLDS)
@settings(max_examples=20, suppress_health_check=DOUBTS)
def test_every_problem_is_searched_as_plain_python_does(
    config: SimulationConfig, seed: int, missing: float, short: float
) -> None:
    world = World.random(seed, config.num_children, missing, short)
    _, found = jax.device_get(search(world, config))
    for problem in range(PROBLEMS):
        expected = oracle(world, problem, config)
        try:
            expected.run()
        except Doubt:
            assume(False)
        assert_search(found, problem, expected)


@given(**WORLDS, actions=st.lists(st.integers(0, 2), min_size=PROBLEMS, max_size=PROBLEMS))
@settings(max_examples=20, suppress_health_check=DOUBTS)
def test_a_kept_tree_is_searched_on_as_plain_python_does(
    seed: int, missing: float, short: float, actions: list[int]
) -> None:
    config = SimulationConfig(num_simulations=25, num_children=3, tree_expansions=30, batch=2)
    world = World.random(seed, config.num_children, missing, short)
    states, found = search(world, config)
    kept, after = jax.device_get(search_on(world, states, found.tree, np.array(actions), config))
    for problem, action in enumerate(actions):
        expected = oracle(world, problem, config)
        try:
            expected.run()
            child = [node for node in expected.root.children if node is expected.root.made[action]]
            if not child:
                assert kept[0].num_nodes[problem] == 1
                assert kept[0].closed[problem, 0]
                assert after[1].progress.simulations[problem] == 0
                continue
            origin = expected.reroot(action)
            assert_tree(kept[0], problem, expected)
            held = kept[1][problem]
            assert {row: old for row, old in enumerate(held.tolist()) if old != NO_NODE} == origin
            expected.run()
        except Doubt:
            assume(False)
        assert_search(after[1], problem, expected)


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_alone_or_under_vmap_a_problem_is_searched_as_in_a_batch(config: SimulationConfig) -> None:
    world = World.random(5, config.num_children, missing=0.2, short=0.0)
    _, together = jax.device_get(search(world, config))
    assert len({row.tobytes() for row in together.tree.visits}) == PROBLEMS
    split = jax.tree.map(lambda field: field[:, None], world)
    _, mapped = jax.device_get(jax.vmap(partial(search, config=config))(split))
    for problem in range(PROBLEMS):
        _, alone = search(jax.tree.map(lambda field, at=problem: field[at : at + 1], world), config)
        alone = jax.device_get(alone)
        for name in ("visits", "worth_sum", "parent", "first_child", "terminal", "dead"):
            row = getattr(together.tree, name)[problem]
            np.testing.assert_array_equal(getattr(alone.tree, name)[0], row)
            np.testing.assert_array_equal(getattr(mapped.tree, name)[problem, 0], row)


def test_virtual_loss_sends_the_next_walk_elsewhere() -> None:
    """The better child is expanded; the second walk of the batch meets it again, or does not."""
    shape = (PROBLEMS, STATES)
    world = World(
        prior=jnp.zeros((*shape, 2)),
        value=jnp.full(shape, 0.5).at[:, 1].set(0.2).at[:, 2].set(0.9),
        terminal=jnp.zeros(shape, bool),
        short=jnp.zeros(shape, bool),
    )
    config = SimulationConfig(num_simulations=4, num_children=2, batch=2, rule=Uct(0.0))
    expanded = {}
    for loss in (0.0, 1.0):
        _, found = jax.device_get(search(world, replace(config, virtual_loss=loss)))
        expanded[loss] = (found.tree.first_child[0, 1:3] != NO_NODE).tolist()
        # The root was worth 0.55; then came the children's values and the grandchildren's.
        later = 0.5 + 0.5
        assert found.tree.worth_sum[0, 0] == pytest.approx(0.55 + 0.2 + 0.9 + later, abs=1e-6)
    assert expanded == {0.0: [False, True], 1.0: [True, True]}


BAD: list[tuple[type, dict[str, Any], str]] = [
    *[
        (SimulationConfig, {name: 0}, f"{name} is 0; it must be at least 1")
        for name in (
            "num_simulations",
            "num_children",
            "num_expansions",
            "tree_expansions",
            "batch",
        )
    ],
    (SimulationConfig, {"virtual_loss": -0.5}, "virtual_loss is -0.5; it must be at least 0"),
    (SimulationConfig, {"virtual_loss": math.nan}, "virtual_loss is nan; it must be at least 0"),
    (SimulationConfig, {"dead_value": -math.inf}, "dead_value is -inf; it must be finite"),
    (Uct, {"c": -1.0}, "c is -1.0; it must be at least 0 and finite"),
    (Uct, {"c": math.nan}, "c is nan; it must be at least 0 and finite"),
    (Puct, {"c_init": -0.1}, "c_init is -0.1; it must be at least 0 and finite"),
    (Puct, {"c_base": 0}, "c_base is 0; it must be above 0 and finite"),
    (Puct, {"dirichlet_fraction": 1.5}, "dirichlet_fraction is 1.5; it must be at most 1"),
    (Puct, {"dirichlet_alpha": 0}, "dirichlet_alpha is 0; it must be above 0 and finite"),
    (Gumbel, {"max_considered": 0}, "max_considered is 0; it must be at least 1"),
    (Gumbel, {"scale": -1}, "scale is -1; it must be at least 0 and finite"),
    (Gumbel, {"value_scale": math.inf}, "value_scale is inf; it must be at least 0 and finite"),
    (Gumbel, {"visits_init": -1}, "visits_init is -1; it must be at least 0 and finite"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), BAD)
def test_a_bad_field_is_named(kind: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(**fields)


def test_a_tree_of_another_width_is_refused() -> None:
    tree = MctsTree.of_roots(1, 10, 3)
    with pytest.raises(ValueError, match="num_children is 2; the tree was made for 3"):
        begin(tree, KEYS[:1], SimulationConfig(num_children=2))
