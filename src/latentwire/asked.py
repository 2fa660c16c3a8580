"""What an encoder's keeper learns from: the words of training texts, and which of them stood in an answer.

training texts, each with its answers ─ encoder ─▶ words' features [N, F], asked [N] ─▶ Keeper, kept on disk for the next training
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from latentwire.atomic import atomic_write
from latentwire.encoder import WINDOWS_AT_ONCE, Encoder, Window
from latentwire.reader import Reader
from latentwire.surprise import words_of

WORDS = 32768  # that are learnt from
LEAST = 100  # of them asked for; with fewer, surprise is the better guide
LONGEST = 12  # words of an answer; longer ones are quotes, which say nothing about what is asked


def teach(
    encoder: Encoder, asked: Mapping[str, Iterable[str]], folder: Path, progress: Callable[[float, str], None]
) -> None:
    """Let the encoder's keeper learn from texts and the answers to what was asked about them, in this order.

    What was learnt so from the same texts is taken from `folder`. With too few words that were asked for the keeper stays as it is.
    """
    texts = {text: sorted(set(answers)) for text, answers in asked.items()}
    windows = [(window, texts[text]) for text in texts for window in encoder.windows(text)]
    digest = hashlib.sha256(json.dumps([encoder.features, WORDS, list(texts.items())]).encode()).hexdigest()[:16]
    path = folder / f"{encoder.identity}-{digest}.safetensors"
    try:
        encoder.keeper.load_state_dict(load_file(path))
        return
    except (FileNotFoundError, SafetensorError):
        pass
    features, found = _examples(encoder, windows, progress)
    if LEAST <= int(found.sum()) < len(found):
        encoder.keeper.learn(features, found)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: part.cpu() for name, part in encoder.keeper.state_dict().items()}
    atomic_write(path, partial(Path.write_bytes, data=save(parts)))


def words_asked(reader: Reader, window: Window, word: Tensor, answers: Iterable[str]) -> Tensor:
    """Whether each word of a window, by the numbers `word [T]` of its tokens, stands in one of the answers: `[N]` bool."""
    spelt = _spelt(reader, window, word)
    found = torch.zeros(len(spelt), dtype=torch.bool)
    for answer in answers:
        ids = reader.prompter.slot(f" {answer.strip()}").ids
        parts = _spelt(reader, ids, words_of(reader, list(ids)))
        if not 0 < len(parts) <= LONGEST:
            continue
        for place in range(len(spelt) - len(parts) + 1):
            if spelt[place : place + len(parts)] == parts:
                found[place : place + len(parts)] = True
    return found


@torch.no_grad()
def _examples(
    encoder: Encoder, windows: Sequence[tuple[Window, Sequence[str]]], progress: Callable[[float, str], None]
) -> tuple[Tensor, Tensor]:
    """Features `[N, F]` and whether it was asked for `[N]`, of each word of the first windows."""
    features, found, count = [], [], 0
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        batch = windows[start : start + WINDOWS_AT_ONCE]
        for (window, answers), seen in zip(batch, encoder.read([window for window, _ in batch]), strict=True):
            features.append(encoder.keeper.features(seen.states.cpu(), seen.surprise, seen.word))
            found.append(words_asked(encoder.reader, window, seen.word, answers))
            count += len(found[-1])
        progress(0.0, f"which words are asked for: {count} words")
        if count >= WORDS:
            break
    return torch.cat(features), torch.cat(found)


def _spelt(reader: Reader, ids: Sequence[int], word: Tensor) -> list[str]:
    """The text of each word, without spaces and capitals."""
    groups: list[list[int]] = [[] for _ in range(int(word[-1]) + 1 if len(word) else 0)]
    for token, number in zip(ids, word.tolist(), strict=True):
        groups[number].append(token)
    return [str(text).strip().casefold() for text in reader.tokenizer.batch_decode(groups)]
