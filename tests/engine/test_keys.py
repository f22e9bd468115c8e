"""What is no random key is refused in one sentence, wherever a key is taken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from engine.programs import CACHE, bigram

KEY = jax.random.key(0)
BAD: dict[str, tuple[Any, str]] = {
    "nothing": (None, "is None; it takes typed random keys"),
    "a seed": (2**32, "is 4294967296; it takes typed"),
    "a list": ([0], r"is \[0\]; it takes typed"),
    "a legacy key": (jax.random.PRNGKey(0), r"is an array of raw words \(of a legacy PRNGKey\)"),
    "legacy keys": (np.zeros((3, 2), np.uint32), r"is an array of raw words \(of a legacy"),
    "numbers": (jnp.zeros(3), r"is float32\[3\]; it takes"),
    "another implementation": (
        jax.random.split(jax.random.key(0, impl="rbg"), 2),
        "is of the implementation rbg; .*of threefry2x32$",
    ),
    "too many axes": (KEY[None, None], r"has the shape \[1, 1\]; it takes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_key_is_refused(name: str) -> None:
    bad, message = BAD[name]
    for batched in (False, True, None):
        with pytest.raises(ValueError, match=f"^it {message}") as caught:
            engine.check_key(bad, "it", batched=batched)
        assert "\n" not in str(caught.value)
    state = jax.eval_shape(lambda: engine.init(bigram(), CACHE))
    for call in (engine.open_branches, lambda s, k: engine.set_keys(s, jnp.zeros(2, int), k)):
        with pytest.raises(ValueError, match=f"^keys {message}"):
            call(state, bad)


def test_one_key_and_several_are_told_apart() -> None:
    several = jax.random.split(KEY, 3)
    engine.check_key(KEY)
    engine.check_key(several, batched=True)
    for key in (KEY, several):
        engine.check_key(key, batched=None)
    with pytest.raises(ValueError, match=r"key has the shape \[3\]; it takes typed random keys, s"):
        engine.check_key(several)
    with pytest.raises(ValueError, match=r"keys has the shape \[\]; it takes typed .* keys \[n\]"):
        engine.check_key(KEY, "keys", batched=True)
    jax.eval_shape(lambda keys: engine.check_key(keys, batched=True), several)  # and of tracers
