"""Contexts as LLMLingua's perplexity mode shortens them, with a model that is on this machine. Nothing is fetched.

    .venv/bin/python runs/llmlingua/compress.py MODEL contexts.jsonl 4 > compressed.jsonl

MODEL is a Llama folder; contexts.jsonl holds one {"text": ...} per line. Runs in an environment of its own
(requirements.txt) and imports nothing of LatentWire. What it asks of the package is as many tokens as a latent of that
compression has vectors; what the package keeps is what the ladder then counts.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import tiktoken

SEGMENT = 50  # tokens that are compressed together; at the package's 200 most contexts of 100 to 200 tokens stay whole


class _Words:
    """In place of OpenAI's tokenizer, which the package fetches from the net to print how much money was saved."""

    def encode(self, text: str, **_: object) -> list[str]:
        return text.split()


def older_folder(model: Path, folder: Path) -> Path:
    """The model's folder as transformers 4 reads it: the rotary base in its old place, the tokenizer's class by its old name."""
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    for name, changes in (("config.json", _config), ("tokenizer_config.json", _tokenizer)):
        fields = json.loads((model / name).read_text())
        (folder / name).unlink()
        (folder / name).write_text(json.dumps({**fields, **changes(fields)}))
    return folder


def _config(fields: dict) -> dict:
    return {"rope_theta": fields["rope_parameters"]["rope_theta"]} if "rope_parameters" in fields else {}


def _tokenizer(fields: dict) -> dict:
    return {"tokenizer_class": "PreTrainedTokenizerFast"}


def main() -> None:
    model, contexts, compression = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    tiktoken.encoding_for_model = lambda name: _Words()
    from llmlingua import PromptCompressor

    with tempfile.TemporaryDirectory() as folder:
        compressor = PromptCompressor(str(older_folder(model, Path(folder))), device_map="cpu")
        for number, line in enumerate(contexts.read_text().splitlines(), 1):
            text = json.loads(line)["text"]
            size = len(compressor.tokenizer(text, add_special_tokens=False)["input_ids"])
            found = compressor.compress_prompt(
                [text],
                target_token=math.ceil(size / compression),
                iterative_size=SEGMENT,
                use_context_level_filter=False,
            )
            print(json.dumps({"text": text, "rewritten": found["compressed_prompt"]}), flush=True)
            print(f"\r{number} contexts", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
