"""Rules that choose a child: UCT, PUCT and Gumbel selection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.monte_carlo.tree import Family

_SMALLEST_SPAN = 1e-8
"""Values closer together than this are not told apart when they are scaled to [0, 1]."""
_LOWEST_SCORE = -1e9
"""Score of a child that is the only one considered, however unlikely it is."""


class RootContext(NamedTuple):
    """What only selection at the root depends on."""

    noise: Array  # f32[problems, num_children], from `Rule.draw_noise`
    visits_before: Array  # i32[problems, num_children], of the root's children before this search
    num_simulations: int  # of this search


class Rule(Protocol):
    """Scores children; selection takes the first of the highest score among those with a prior."""

    def draw_noise(self, key: Array, num_children: int) -> Array:
        """The noise f32[num_children] of one problem's root."""
        ...

    def scores(self, family: Family) -> Array:
        """f32[problems, num_children]."""
        ...

    def root_scores(self, family: Family, root: RootContext) -> Array:
        """The same at the root."""
        ...


@dataclass(frozen=True)
class Uct:
    """Q + c · √(ln N / n) (Kocsis & Szepesvári 2006); unvisited children first, by their priors.

    Attributes:
      c: weight of exploration; √2 suits values in [0, 1].
    """

    c: float = math.sqrt(2)

    def __post_init__(self) -> None:
        _check_least(self, "c", 0)

    def draw_noise(self, key: Array, num_children: int) -> Array:
        del key
        return jnp.zeros(num_children, jnp.float32)

    def scores(self, family: Family) -> Array:
        visits = jnp.maximum(family.child_visits, 1)
        spread = jnp.sqrt(jnp.log(family.visits)[:, None] / visits)
        fresh = (family.child_visits == 0) & ~jnp.isneginf(family.prior_logits)
        return jnp.where(
            jnp.any(fresh, axis=1, keepdims=True),
            jnp.where(fresh, family.prior_logits, -jnp.inf),
            family.child_mean_worth + self.c * spread,
        )

    def root_scores(self, family: Family, root: RootContext) -> Array:
        del root
        return self.scores(family)


@dataclass(frozen=True)
class Puct:
    """Prior-guided selection as in MuZero (Schrittwieser et al. 2020, appendix B).

    Q is scaled to [0, 1] between the least and the greatest of the node's value and its visited
    children's; an unvisited child has the least.

    Attributes:
      c_init: weight of exploration.
      c_base: visits at which the weight has grown by ln 2.
      dirichlet_fraction: share of Dirichlet noise in the root's priors; 0 is none.
      dirichlet_alpha: concentration of the noise.
    """

    c_init: float = 1.25
    c_base: float = 19652.0
    dirichlet_fraction: float = 0.0
    dirichlet_alpha: float = 0.3

    def __post_init__(self) -> None:
        _check_least(self, "c_init", 0)
        _check_above(self, "c_base", 0)
        _check_least(self, "dirichlet_fraction", 0)
        if self.dirichlet_fraction > 1:
            raise ValueError(
                f"dirichlet_fraction is {self.dirichlet_fraction}; it must be at most 1"
            )
        _check_above(self, "dirichlet_alpha", 0)

    def draw_noise(self, key: Array, num_children: int) -> Array:
        if self.dirichlet_fraction == 0:
            return jnp.zeros(num_children, jnp.float32)
        return jax.random.loggamma(key, jnp.full(num_children, self.dirichlet_alpha, jnp.float32))

    def scores(self, family: Family) -> Array:
        return self._scores(family, jax.nn.softmax(family.prior_logits, axis=1))

    def root_scores(self, family: Family, root: RootContext) -> Array:
        prior = jax.nn.softmax(family.prior_logits, axis=1)
        if self.dirichlet_fraction > 0:
            # Gamma draws over the children that exist, scaled to sum to 1, are Dirichlet.
            exists = ~jnp.isneginf(family.prior_logits)
            noise = jax.nn.softmax(jnp.where(exists, root.noise, -jnp.inf), axis=1)
            prior = (1 - self.dirichlet_fraction) * prior + self.dirichlet_fraction * noise
        return self._scores(family, prior)

    def _scores(self, family: Family, prior: Array) -> Array:
        total = family.visits.astype(jnp.float32)[:, None]
        weight = self.c_init + jnp.log((total + self.c_base + 1) / self.c_base)
        exploration = jnp.sqrt(total) * weight * prior / (family.child_visits + 1)
        visited = family.child_visits > 0
        own = family.mean_worth[:, None]
        known = jnp.where(visited, family.child_mean_worth, own)
        least = jnp.minimum(own, jnp.min(known, axis=1, keepdims=True))
        greatest = jnp.maximum(own, jnp.max(known, axis=1, keepdims=True))
        completed = jnp.where(visited, family.child_mean_worth, least)
        return (completed - least) / jnp.maximum(greatest - least, _SMALLEST_SPAN) + exploration


@dataclass(frozen=True)
class Gumbel:
    """Sequential halving at the root, deterministic selection below (Danihelka et al. 2022).

    Attributes:
      max_considered: children of the root that sequential halving begins with, at most.
      scale: of the Gumbel noise at the root; 0 is none.
      value_scale: weight of the values beside the priors.
      visits_init: visits that the weight of the values starts from.
    """

    max_considered: int = 16
    scale: float = 1.0
    value_scale: float = 0.1
    visits_init: float = 50.0

    def __post_init__(self) -> None:
        _check_least(self, "max_considered", 1)
        for field in ("scale", "value_scale", "visits_init"):
            _check_least(self, field, 0)

    def draw_noise(self, key: Array, num_children: int) -> Array:
        return self.scale * jax.random.gumbel(key, (num_children,), jnp.float32)

    def scores(self, family: Family) -> Array:
        policy = jax.nn.softmax(family.prior_logits + self._completed_values(family), axis=1)
        visits = family.child_visits
        return policy - visits / (1 + jnp.sum(visits, axis=1, keepdims=True))

    def root_scores(self, family: Family, root: RootContext) -> Array:
        visits = family.child_visits - root.visits_before
        schedules = halving_schedules(self.max_considered, root.num_simulations)
        num_children = jnp.sum(~jnp.isneginf(family.prior_logits), axis=1)
        schedule = schedules[jnp.minimum(num_children, self.max_considered)]
        simulation = jnp.minimum(jnp.sum(visits, axis=1), root.num_simulations - 1)
        considered = jnp.take_along_axis(schedule, simulation[:, None], axis=1)
        logits = family.prior_logits - jnp.max(family.prior_logits, axis=1, keepdims=True)
        score = root.noise + logits + self._completed_values(family)
        return jnp.where(visits == considered, jnp.maximum(score, _LOWEST_SCORE), -jnp.inf)

    def _completed_values(self, family: Family) -> Array:
        """Scaled values f32[problems, num_children]; unvisited children have the mixed value."""
        visited = family.child_visits > 0
        prior = jax.nn.softmax(family.prior_logits, axis=1)
        prior = jnp.maximum(prior, jnp.finfo(prior.dtype).tiny)
        mass = jnp.sum(jnp.where(visited, prior, 0), axis=1, keepdims=True)
        share = jnp.where(visited, prior / jnp.where(visited, mass, 1), 0)
        expected = jnp.sum(share * family.child_mean_worth, axis=1)
        total = jnp.sum(family.child_visits, axis=1)
        mixed = (family.worth + total * expected) / (total + 1)
        values = jnp.where(visited, family.child_mean_worth, mixed[:, None])
        least = jnp.min(values, axis=1, keepdims=True)
        span = jnp.max(values, axis=1, keepdims=True) - least
        values = (values - least) / jnp.maximum(span, _SMALLEST_SPAN)
        most_visits = jnp.max(family.child_visits, axis=1, keepdims=True)
        return (self.visits_init + most_visits) * self.value_scale * values


def halving_schedules(max_considered: int, num_simulations: int) -> Array:
    """For each number of children from 0 on, the visits that a child to be tried has so far.

    Returns:
      i32[max_considered + 1, num_simulations].
    """
    rows = [_halving_schedule(count, num_simulations) for count in range(max_considered + 1)]
    return jnp.array(rows, jnp.int32)


def _halving_schedule(count: int, num_simulations: int) -> list[int]:
    """Rounds over ever fewer children (Karnin et al. 2013), each with about the same share."""
    if count <= 1:
        return list(range(num_simulations))
    rounds = math.ceil(math.log2(count))
    visits = [0] * count
    schedule: list[int] = []
    considered = count
    while len(schedule) < num_simulations:
        for _ in range(max(1, num_simulations // (rounds * considered))):
            schedule += visits[:considered]
            visits[:considered] = [visit + 1 for visit in visits[:considered]]
        considered = max(2, considered // 2)
    return schedule[:num_simulations]


def _check_least(rule: object, field: str, least: float) -> None:
    value = getattr(rule, field)
    if not value >= least or value == math.inf:
        raise ValueError(f"{field} is {value}; it must be at least {least} and finite")


def _check_above(rule: object, field: str, limit: float) -> None:
    value = getattr(rule, field)
    if not value > limit or value == math.inf:
        raise ValueError(f"{field} is {value}; it must be above {limit} and finite")
