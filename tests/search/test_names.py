"""No function hides a module: what a name of the package means does not hang on who imported it."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import dendrite_jax.search


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(dendrite_jax.search.__path__, "dendrite_jax.search.")
    return [dendrite_jax.search, *(importlib.import_module(each.name) for each in found)]


def test_a_submodule_is_reached_by_its_name() -> None:
    for module in modules():
        for each in pkgutil.iter_modules(getattr(module, "__path__", [])):
            assert isinstance(getattr(module, each.name), ModuleType), f"{module} {each.name}"


def test_no_public_name_of_a_module_is_its_own() -> None:
    for module in modules():
        own = module.__name__.rsplit(".", 1)[1]
        assert not hasattr(module, own), module
