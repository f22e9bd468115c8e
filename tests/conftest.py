"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# Examples are derived from the test, so that every run checks the same ones; the first example
# of a test pays for compilation, so that there is no deadline. To search further:
# pytest --hypothesis-profile=explore
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")
