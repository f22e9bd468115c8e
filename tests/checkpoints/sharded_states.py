"""Saves a sharded pytree or restores it, on as many virtual CPU devices as asked for.

    python sharded_states.py save|restore DEVICES FOLDER

The number of devices is fixed when JAX starts, so that each test case is a process of its own.
"""

from __future__ import annotations

import os
import sys

command, devices, folder = sys.argv[1:]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

from dendrite_jax import checkpoints  # noqa: E402


def make() -> dict[str, jax.Array]:
    return {"pool": jnp.arange(64.0).reshape(2, 8, 4), "count": jnp.arange(8), "one": jnp.arange(3)}


mesh = Mesh(np.array(jax.devices()), ("heads",))
SHARDINGS = {
    "pool": NamedSharding(mesh, PartitionSpec(None, "heads")),
    "count": NamedSharding(mesh, PartitionSpec()),
}

if command == "save":
    tree = make()
    shardings = {**SHARDINGS, "one": SHARDINGS["count"]}
    checkpoints.save(folder, jax.device_put(tree, shardings))
else:
    like = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SHARDINGS.get(name))
        for name, leaf in jax.eval_shape(make).items()
    }
    restored = checkpoints.restore(folder, like)
    for name, leaf in make().items():
        np.testing.assert_array_equal(restored[name], leaf)
    for name, sharding in SHARDINGS.items():
        assert restored[name].sharding == sharding, name
        assert len(restored[name].sharding.device_set) == int(devices), name
    assert restored["one"].sharding.device_set == {jax.devices()[0]}
