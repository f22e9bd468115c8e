"""`python -m dendrite_jax.benchmarks.mcts`."""

from dendrite_jax.benchmarks.mcts.table import main

if __name__ == "__main__":
    main()
