"""Mutations of the searches."""

from __future__ import annotations

from mutants.mutant import Mutant

_BEAMS = "dendrite_jax/search/beam/token_beams.py"
_LEVELS = "dendrite_jax/search/levels/"
_MONTE_CARLO = "dendrite_jax/search/monte_carlo/"
_GOLDEN_BEAMS = ("search/beam/test_beam_golden.py::test_beams_equal_transformers",)
_RULES_OF_BEAMS = ("search/beam/test_beam_search.py::test_a_narrow_search_follows_the_rules",)
_STEPS = (
    "search/levels/test_step_searches.py::test_every_problem_is_the_replay_of_its_own_search[steps]",
)
_DVTS = (
    "search/levels/test_step_searches.py::test_every_problem_is_the_replay_of_its_own_search[dvts]",
)
_DEPTH_FIRST = ("search/test_backtracking.py::test_the_search_goes_back_after_a_dead_end",)
_CORE = ("search/monte_carlo/test_core.py::test_every_problem_is_searched_as_plain_python_does",)
_MCTX = (
    "search/monte_carlo/test_against_mctx.py::test_every_number_of_simulations_gives_the_tree_of_mctx",
)
_GUMBEL = ("search/monte_carlo/test_against_mctx.py::test_gumbel_selection_gives_the_tree_of_mctx",)

MUTANTS = (
    Mutant(
        "the length penalty rewards length",
        "dendrite_jax/search/beam/config.py",
        "** self.length_penalty",
        "** -self.length_penalty",
        _GOLDEN_BEAMS,
    ),
    Mutant(
        "finished beams are forgotten",
        _BEAMS,
        "finished = merge(loop.finished, ended)",
        "finished = ended",
        _GOLDEN_BEAMS,
    ),
    Mutant(
        "a search ends at its first finished beam",
        _BEAMS,
        "worst = jnp.min(finished.score, axis=1)",
        "worst = jnp.max(finished.score, axis=1)",
        _GOLDEN_BEAMS,
    ),
    Mutant(
        "groups of beams seek what others took",
        "dendrite_jax/search/beam/ranking.py",
        "allowed - config.diversity_penalty * taken",
        "allowed + config.diversity_penalty * taken",
        _RULES_OF_BEAMS,
    ),
    Mutant(
        "the first thought kept has all proposals",
        _LEVELS + "share.py",
        "turn = jnp.arange(proposals) % jnp.maximum(alive, 1)",
        "turn = jnp.arange(proposals) * jnp.zeros_like(alive)",
        _STEPS,
    ),
    Mutant(
        "an answer is gone on with",
        _LEVELS + "keep.py",
        "jnp.where(level.ends, -jnp.inf, level.value)",
        "level.value",
        _STEPS,
    ),
    Mutant(
        "the least value of a path is its greatest",
        _LEVELS + "aggregation.py",
        '"min": jnp.minimum,',
        '"min": jnp.maximum,',
        _DVTS,
    ),
    Mutant(
        "a subtree goes on with its worst step",
        _LEVELS + "keep.py",
        "chosen = first + jnp.argmax(value, axis=2)",
        "chosen = first + jnp.argmin(value, axis=2)",
        _DVTS,
    ),
    Mutant(
        "parts of a width are rounded down",
        _LEVELS + "share.py",
        "count = jnp.ceil(",
        "count = jnp.floor(",
        (
            "search/levels/test_step_searches.py::test_a_width_is_shared_out_by_softmax_and_rounded_up",
        ),
    ),
    Mutant(
        "of equal thoughts the worst is kept",
        "dendrite_jax/search/select.py",
        "order = jnp.argsort(-value, axis=1, stable=True)",
        "order = jnp.argsort(value, axis=1, stable=True)",
        _DEPTH_FIRST,
    ),
    Mutant(
        "the worst child is gone on with first",
        "dendrite_jax/search/backtracking.py",
        "above = count - 1 - jnp.arange(row.shape[1])",
        "above = jnp.arange(row.shape[1])",
        _DEPTH_FIRST,
    ),
    Mutant(
        "the unlikeliest answers have the most votes",
        "dendrite_jax/search/score/voting.py",
        "jax.nn.softmax(result.values, axis=1, where=voter)",
        "jax.nn.softmax(-result.values, axis=1, where=voter)",
        ("search/levels/test_sample.py::test_answers_are_elected[weighted]",),
    ),
    Mutant(
        "the worth of a walk is subtracted on its way up",
        _MONTE_CARLO + "tree.py",
        ".add(worths, mode",
        ".add(-worths, mode",
        _CORE,
    ),
    Mutant(
        "a walk counts at its leaf only",
        _MONTE_CARLO + "tree.py",
        "node=jnp.where(climb.node == NO_NODE, NO_NODE, above)",
        "node=jnp.full_like(above, NO_NODE)",
        _CORE,
    ),
    Mutant(
        "virtual loss attracts",
        _MONTE_CARLO + "simulation.py",
        "tree.at(tree.worth, leaf), -loss)",
        "tree.at(tree.worth, leaf), loss)",
        ("search/monte_carlo/test_core.py::test_virtual_loss_sends_the_next_walk_elsewhere",),
    ),
    Mutant(
        "virtual loss is not taken back",
        _MONTE_CARLO + "children.py",
        "jnp.zeros_like(leaves), worth + loss)",
        "jnp.zeros_like(leaves), worth)",
        ("search/monte_carlo/test_core.py::test_virtual_loss_sends_the_next_walk_elsewhere",),
    ),
    Mutant(
        "a node is expanded at its third visit",
        _MONTE_CARLO + "simulation.py",
        "(tree.at(tree.visits, leaf) == 0)",
        "(tree.at(tree.visits, leaf) <= 1)",
        (
            "search/monte_carlo/test_against_mctx.py::test_an_expansion_is_made_at_the_second_visit_only",
        ),
    ),
    Mutant(
        "UCT explores by visits, not their logarithm",
        _MONTE_CARLO + "selection.py",
        "jnp.log(family.visits)[:, None] / visits",
        "family.visits[:, None] / visits",
        _CORE,
    ),
    Mutant(
        "PUCT divides by one visit more",
        _MONTE_CARLO + "selection.py",
        "prior / (family.child_visits + 1)",
        "prior / (family.child_visits + 2)",
        _CORE,
    ),
    Mutant(
        "prior logits are weights as they are",
        _MONTE_CARLO + "selection.py",
        "self._scores(family, jax.nn.softmax(family.prior_logits, axis=1))",
        "self._scores(family, jnp.exp(family.prior_logits))",
        _MCTX,
    ),
    Mutant(
        "sequential halving goes down to one child",
        _MONTE_CARLO + "selection.py",
        "considered = max(2, considered // 2)",
        "considered = max(1, considered // 2)",
        _GUMBEL,
    ),
    Mutant(
        "a new root is as deep as it was",
        _MONTE_CARLO + "rerooting.py",
        "depth=jnp.maximum(moved.depth - 1, 0)",
        "depth=moved.depth",
        ("search/monte_carlo/test_reroot.py::test_a_kept_tree_goes_on_as_plain_python_does",),
    ),
    Mutant(
        "the reward model forks by the search's branch ids",
        "dendrite_jax/search/score/reward_model.py",
        "jnp.where(children >= 0, mirror.of(parents), NO_BRANCH)",
        "jnp.where(children >= 0, parents, NO_BRANCH)",
        (
            "search/test_dense_recomputation.py::test_logprobs_and_rewards_are_those_of_the_whole_text[depth_first]",
        ),
    ),
)
