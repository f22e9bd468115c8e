"""The `dendrite` command."""
