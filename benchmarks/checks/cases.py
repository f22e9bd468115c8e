"""Every search and generation in a shape that a GPU compiles soon, called alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import engine, search
from dendrite_jax.benchmarks.grammar.cases import synthetic_vocabulary
from dendrite_jax.benchmarks.harness.shapes import SHAPES, random_model
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import GREEDY, PLAIN, GenerateConfig, State, StopRules
from dendrite_jax.grammar import CompiledGrammar, Grammar, GrammarCompiler
from dendrite_jax.models import Decoder
from dendrite_jax.search import RewardModel, SampleThoughts, SearchResult, ValueHead

SHAPE = "two-layers"
"""A shape of `harness.shapes`."""
CALLS = 5
"""Calls of each compiled function, on other prompts and keys every time."""
PROMPT = 40
"""Tokens of the longest prompt; the others are up to 7 shorter."""
NEW_TOKENS = 24
THOUGHT = 6
DEPTH = 3
LARGE_POOL = 70_000
"""Blocks with which a pool of SHAPE has more than 2³¹ elements of keys."""

VOCAB_SIZE = SHAPES[SHAPE].vocab_size
STOPS = tuple(range(0, VOCAB_SIZE, 97))
"""About one token in a hundred ends a thought or a beam; sampled thoughts end so now and then."""


class Found(NamedTuple):
    """What a check compares between two compilations, and holds to the plain-XLA twin."""

    result: Any  # everything that came out
    tokens: Array  # i32[paths, tokens], NO_TOKEN past a path's end
    raw_logprob: Array  # f32[paths], of all tokens of a path
    root: Array  # i32[paths], which of the call's roots a path grows from
    steps: Array  # i32[], token steps by the ledger
    empty: Array  # bool[], some root has no path


Program = Callable[..., tuple[State, Found]]
"""f(model, pieces, state, roots, key) → state, found."""


@dataclass(frozen=True)
class Case:
    """A function to compile and call, and the state that it wants."""

    name: str
    program: Program
    lanes: int
    """Lanes of a token step."""
    slots: int
    """Branches that a call holds beside the roots."""
    problems: int = 1
    constrained: bool = False
    mapped: bool = False
    """Whether it is called under `jax.vmap`, over two states."""
    num_blocks: int | None = None
    pieces: dict[str, Any] = field(default_factory=dict)
    """Arguments of the search that are pytrees, such as a reward model."""

    @property
    def cache_config(self) -> CacheConfig:
        """Room for everything, prompts of all calls included."""
        context = PROMPT + max(NEW_TOKENS, THOUGHT * (DEPTH + 1))
        branches = self.slots + CALLS * self.problems
        blocks = self.num_blocks or branches * -(-context // CacheConfig.block_size)
        return CacheConfig(num_blocks=blocks, num_slots=branches, max_context=context)


def generation(
    lanes: int, model: Decoder, pieces: Any, state: State, roots: Array, key: Array
) -> tuple[State, Found]:
    """Samples from forks of the roots; `pieces` may have "sampling" and "stop"."""
    del key
    before = state.cache.ledger
    of_root = jnp.arange(lanes) % roots.shape[0]
    state, children = engine.fork(state, roots[of_root])
    config = GenerateConfig(NEW_TOKENS)
    state, out = engine.generate(model, state, children, config, **pieces)
    state = engine.free(state, children)
    return state, Found(
        result=(out.tokens, out.length, out.raw_logprobs, out.logprobs, out.finish),
        tokens=out.tokens,
        raw_logprob=jnp.sum(out.raw_logprobs, axis=1),
        root=of_root,
        steps=state.cache.ledger.since(before).steps[0],
        empty=jnp.any(out.length == 0),
    )


def searched(
    call: Callable[..., Any], model: Decoder, pieces: Any, state: State, roots: Array, key: Array
) -> tuple[State, Found]:
    """A search by `call(model, state, roots, key, **pieces)`."""
    state, result = call(model, state, roots, key, **pieces)
    problems, answers = result.answers.shape
    return state, Found(
        result=result,
        tokens=result.tokens.reshape(problems * answers, -1),
        raw_logprob=_path_logprob(result).reshape(-1),
        root=jnp.repeat(jnp.arange(problems), answers),
        steps=result.ledger.steps[0],
        empty=jnp.any(jnp.all(result.answers < 0, axis=1)),
    )


def _path_logprob(result: SearchResult) -> Array:
    """f32[problems, answers]: the sum over the nodes of each answer's path."""
    tree = result.tree
    problem = jnp.arange(result.answers.shape[0])[:, None]

    def up(node: Array, _: None) -> tuple[Array, Array]:
        here = jnp.maximum(node, 0)  # the root adds nothing and has no parent
        return tree.parent[problem, here], tree.raw_logprob[problem, here]

    deepest = max(NEW_TOKENS, DEPTH)
    _, logprob = jax.lax.scan(up, result.answers, None, length=deepest)
    return jnp.sum(logprob, axis=0)


def all_cases() -> list[Case]:
    """Generations and searches, of few and many lanes, plain and with what may be added."""
    reward = {"score": reward_model()}
    cases = list(_generations())
    for few, width in ((True, 4), (False, 32)):
        for name, call, config, lanes in searches(width):
            problems = 1 if few else 4
            size = "few" if few else "many"
            plain = Case(
                name=f"{name}, {size} lanes",
                program=partial(searched, call),
                lanes=lanes * problems,
                slots=config.num_slots * problems,
                problems=problems,
            )
            cases.append(plain)
            if few:
                cases.append(_variant(plain, "grammar", constrained=True))
                cases.append(_variant(plain, "vmap", mapped=True))
            if name != "beam_search":
                cases.append(_variant(plain, "reward model", pieces=reward))
    return cases


def _generations() -> list[Case]:
    stop = {"stop": StopRules.of(STOPS)}
    cases = [
        Case(f"generate, {lanes} lanes", partial(generation, lanes), lanes, lanes, problems)
        for lanes, problems in ((1, 1), (4, 1), (16, 1), (128, 4))
    ]
    four = cases[1]
    large = _variant(four, "pool over 2³¹ elements", num_blocks=LARGE_POOL)
    return [
        *cases,
        _variant(four, "greedy", pieces={"sampling": GREEDY}),
        _variant(four, "stop tokens", pieces={"sampling": PLAIN, **stop}),
        _variant(four, "grammar", constrained=True),
        _variant(four, "vmap", mapped=True),
        large,
    ]


def _variant(case: Case, what: str, **changes: Any) -> Case:
    """The case with more; a pytree among its pieces is an argument of the compiled function."""
    values = {name: getattr(case, name) for name in case.__dataclass_fields__}
    return Case(**values | changes | {"name": f"{case.name}, {what}"})


def searches(width: int) -> list[tuple[str, Callable[..., Any], Any, int]]:
    """Name, f(model, state, roots, key, **pieces), config and lanes of every search."""
    expand = SampleThoughts(THOUGHT, StopRules.of(STOPS), any_end=True)
    beams = search.BeamSearchConfig(width=width, max_new_tokens=NEW_TOKENS)
    found: list[tuple[str, Callable[..., Any], Any, int]] = [
        ("beam_search", partial(search.beam_search, config=beams), beams, width)
    ]
    step_beam: dict[str, Any] = {"n": width, "beam_width": 2, "iterations": DEPTH}
    by_thoughts: dict[str, tuple[Any, Any, int]] = {
        "greedy": (search.greedy, search.SampleConfig(1, DEPTH), 1),
        "sample": (search.sample, search.SampleConfig(width, DEPTH), width),
        "best_of_n": (search.best_of_n, search.BestOfNConfig(width, DEPTH), width),
        "step_beam": (search.step_beam, search.StepBeamConfig(**step_beam), width),
        "dvts": (search.dvts, search.DVTSConfig(**step_beam, lookahead=1), width),
        "rebase": (search.rebase, search.RebaseConfig(width, DEPTH), width),
        "tree_of_thoughts": (
            search.tree_of_thoughts,
            search.TreeOfThoughtsConfig(max(1, width // 4), width, DEPTH),
            width,
        ),
        "depth_first": (
            search.depth_first,
            search.DepthFirstConfig(width, DEPTH, 2 * DEPTH, num_answers=2),
            width,
        ),
        "mcts": (
            search.mcts,
            search.MctsConfig(24, width, num_expansions=8, max_depth=DEPTH),
            width,
        ),
    }
    for name, (call, config, lanes) in by_thoughts.items():
        found.append((name, partial(call, config=config, expand=expand), config, lanes))
    return found


def reward_model() -> RewardModel:
    """A second model of the same shape, other weights, with a value head."""
    weight = jax.random.normal(jax.random.key(8), (1, SHAPES[SHAPE].hidden_size)) * 0.05
    head = ValueHead((weight,), (jnp.zeros(1),))
    return RewardModel(random_model(SHAPE, jnp.bfloat16, seed=7), head)


def token_table() -> CompiledGrammar:
    """An endless list of words, so that no branch ends by its grammar."""
    vocabulary = synthetic_vocabulary(VOCAB_SIZE)
    compiler = GrammarCompiler(vocabulary, use_cache=False)
    return compiler.compile(Grammar.from_regex(r"([a-z ]{1,12}, )*"))
