"""Proof that the tests find faults: one-line mutations, and the tests that must fail on each.

`make mutants` applies every mutation to a copy of the tree and runs the tests that it names.
"""
