"""`python -m dendrite_jax.benchmarks.game24`."""

from dendrite_jax.benchmarks.game24.table import main

if __name__ == "__main__":
    main()
