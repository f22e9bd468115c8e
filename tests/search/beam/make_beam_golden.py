"""Makes `golden/beams.json` from transformers: `python tests/search/beam/make_beam_golden.py`.

Needs torch and transformers. Each config is searched without stop tokens, and with the two tokens
that occur most often in those beams as stop tokens, so that beams end at many lengths.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from search.beam.beam_cases import CONFIGS, GOLDEN, BeamCase, save_golden
from search.beam.hf_beams import hf_beams

if __name__ == "__main__":
    cases = []
    for config in CONFIGS:
        unstopped = hf_beams(config, [])
        counts = Counter(token for beams in unstopped for beam in beams for token in beam.tokens)
        stops = [token for token, _ in counts.most_common(2)]
        cases += [BeamCase(config, [], unstopped), BeamCase(config, stops, hf_beams(config, stops))]
    save_golden(cases)
    lengths = Counter(len(beam.tokens) for case in cases for beams in case.beams for beam in beams)
    print(f"{GOLDEN}: {len(cases)} cases, beams by length {dict(sorted(lengths.items()))}")
