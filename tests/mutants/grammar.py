"""Mutations of grammars."""

from __future__ import annotations

from mutants.mutant import Mutant

_TABLE = "dendrite_jax/grammar/table/"
_JSON_SCHEMA = "dendrite_jax/grammar/json_schema/"
_EQUALITY = "grammar/test_schema_equality.py::test_every_state_allows_what_llguidance_allows"

MUTANTS = (
    Mutant(
        "minimisation ends after a round",
        "dendrite_jax/grammar/automata/minimise.py",
        "if moved else touched[:0]",
        "if not moved else touched[:0]",
        ("grammar/test_regex_fullmatch.py::test_generated_regexes_match_what_python_matches",),
    ),
    Mutant(
        "the largest part of a split block moves",
        "dendrite_jax/grammar/automata/minimise.py",
        "leaving = ranked[:-1] if all_touched else ranked",
        "leaving = ranked[1:]",
        ("grammar/test_regex_fullmatch.py::test_generated_regexes_match_what_python_matches",),
    ),
    Mutant(
        "an intersection is a union",
        "dendrite_jax/grammar/automata/dfa_algebra.py",
        "np.logical_and, False",
        "np.logical_or, False",
        ("grammar/test_numbers.py::test_multiples_have_their_shortest_spelling",),
    ),
    Mutant(
        "the bits of a mask stand in the other order",
        _TABLE + "compiled.py",
        'np.take(allowed, index), bitorder="little")',
        'np.take(allowed, index), bitorder="big")',
        ("grammar/test_runtime.py::test_the_first_mask_holds_the_tokens_that_begin_a_text",),
    ),
    Mutant(
        "one of several allowed tokens is forced",
        _TABLE + "compiled.py",
        "alone = sets @ count == 1",
        "alone = sets @ count >= 1",
        ("grammar/test_runtime.py::test_a_token_is_forced_where_its_state_allows_no_other",),
    ),
    Mutant(
        "states of a stacked grammar lead into the first",
        _TABLE + "compiled.py",
        "np.where(own < _SHARED_STATES, own, own + state_shift[i])",
        "own",
        ("grammar/test_runtime.py::test_stacked_grammars_behave_as_alone",),
    ),
    Mutant(
        "an edge is found by its node alone",
        _TABLE + "lazy_table.py",
        " & (found[..., TOKEN] == token[..., None])",
        "",
        ("grammar/test_lazy.py::test_every_edge_of_a_crowded_table_is_found_and_no_other",),
    ),
    Mutant(
        "an exclusive maximum is taken",
        _JSON_SCHEMA + "numerals.py",
        "state.digits < len(self._high_fraction) or not self._high.excluded",
        "True",
        ("grammar/test_numbers.py::test_bounds_take_every_spelling_of_the_values_between",),
    ),
    Mutant(
        "an excluded bound between integers leaves out the next one",
        _JSON_SCHEMA + "number_automata.py",
        "if excluded and nearest == value else nearest",
        "if excluded else nearest",
        ("grammar/test_numbers.py::test_bounds_take_every_spelling_of_the_values_between",),
    ),
    Mutant(
        "every year is a leap year",
        _JSON_SCHEMA + "formats.py",
        '"02-" + _group("0[1-9]", "1[0-9]", "2[0-8]")',
        '"02-" + _group("0[1-9]", "1[0-9]", "2[0-9]")',
        ("grammar/test_formats.py::test_every_date_of_ten_thousand_years",),
    ),
    Mutant(
        "of two upper bounds the larger holds",
        _JSON_SCHEMA + "intersect.py",
        "return min(bounds, default=None)",
        "return max(bounds, default=None)",
        (f"{_EQUALITY}[allOf bounds]",),
    ),
)
