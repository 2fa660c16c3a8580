"""The distinct contexts that a recipe trains and evaluates on, one {"text": ...} per line: what another program may compress.

python runs/contexts.py recipes/wire.yaml [key=value ...] > contexts.jsonl
"""

import json
import sys
from pathlib import Path

from latentwire.config import load_recipe
from latentwire.pipeline import evaluation_examples, training_examples

if __name__ == "__main__":
    recipe = load_recipe(Path(sys.argv[1]), sys.argv[2:])
    examples = [*evaluation_examples(recipe), *training_examples(recipe)]
    for context in dict.fromkeys(example.context for example in examples):
        print(json.dumps({"text": context}))
