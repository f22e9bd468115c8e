"""Text to JSON: a schema holds the model to its shape, and a fork of the prompt tries again.

Run it from anywhere: `python examples/extract_json.py`
With a checkpoint of your own: `python examples/extract_json.py --model ./Llama-3.2-1B --prompt ...`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from dendrite_jax.engine import Sampling
from dendrite_jax.grammar import Grammar
from dendrite_jax.serving import Engine
from dendrite_jax.tasks.game24.solve import load_solver

NUMBER = {"type": "string", "pattern": "^[0-9]{1,3}(/[0-9]{1,2})?$"}
SCHEMA = {
    "type": "object",
    "properties": {
        "a": NUMBER,
        "op": {"enum": ["+", "-", "*", "/"]},
        "b": NUMBER,
        "result": NUMBER,
        "left": {"type": "array", "items": NUMBER, "minItems": 1, "maxItems": 3},
        "value": {"enum": ["sure", "impossible"]},
    },
    "required": ["a", "op", "b", "result", "left", "value"],
    "additionalProperties": False,
    # The embedded model was trained on JSON without spaces.
    "x-guidance": {"whitespace_flexible": False},
}


def main(arguments: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Prints two objects that are valid under the schema and gives them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="A Hugging Face model folder; the embedded one by default.")
    parser.add_argument("--prompt", default="<|bos|>JSON 24 from 4 5 6 10\n")
    options = parser.parse_args(arguments)
    if options.model:
        engine = Engine.load(options.model, max_context=1024, num_slots=4)
    else:
        engine = Engine(*load_solver(), max_context=128, num_slots=4)

    # Compiled once: a table of states and token classes, on the device with the model.
    grammar = engine.compile(Grammar.from_json_schema(SCHEMA))
    prompt = engine.tokenizer.encode(options.prompt)
    branches = engine.fork(engine.prompt(prompt, seed=1, grammar=grammar), 2)
    completions = engine.generate(branches, 96, Sampling(temperature=0.7))

    for completion in completions:
        print(completion.text)
    return [json.loads(completion.text) for completion in completions]


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
