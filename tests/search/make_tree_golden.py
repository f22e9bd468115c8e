"""Makes `golden/trees.json` from the searches: `python tests/search/make_tree_golden.py`.

The replays in plain Python say that a search is right; this file, that it has not changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from search.every_search import EVERY_SEARCH
from search.tree_cases import GOLDEN, trees_of

if __name__ == "__main__":
    cases = [f"{json.dumps(name)}: {json.dumps(trees_of(name))}" for name in EVERY_SEARCH]
    GOLDEN.write_text("{\n" + ",\n".join(cases) + "\n}\n")
