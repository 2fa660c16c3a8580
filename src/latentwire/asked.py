"""What an encoder's keeper learns from: the words of training texts, and which of them stood in an answer.

training texts, each with its answers ─ encoder ─▶ words' features [N, F], asked [N] ─▶ Keeper, kept on disk for the next training

How many words it takes depends on the texts: twice as many are read each time, as long as the words of texts that were held out are told
apart better for it. What was learnt before stays as it is unless theirs are told apart better by what these texts add: a few questions about
each text mark too few of the words that could be asked for.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from latentwire.atomic import atomic_write
from latentwire.encoder import WINDOWS_AT_ONCE, Encoder, Window
from latentwire.keeper import SHRINKAGE, Keeper
from latentwire.reader import Reader
from latentwire.surprise import words_of

REVISION = 2  # of how it learns: what another revision kept on disk is left there
WORDS = 32768  # that are learnt from at first
MOST_VALUES = 2**29  # of features that are held: 1 GiB
HELD_OUT = 8  # one window of so many judges what was learnt from the others
LEAST_GAIN = 3e-3  # in how well held-out words are ranked, that twice as many words must bring
LEAST = 100  # of them asked for; with fewer, surprise is the better guide
LONGEST = 12  # words of an answer; longer ones are quotes, which say nothing about what is asked


def teach(
    encoder: Encoder, asked: Mapping[str, Iterable[str]], folder: Path, progress: Callable[[float, str], None]
) -> None:
    """Let the encoder's keeper learn from texts and the answers to what was asked about them, in this order.

    What was learnt so from the same texts is taken from `folder`. With too few words that were asked for, or when it would rank words of
    held-out texts no better than it does, the keeper stays as it is.
    """
    texts = {text: sorted(set(answers)) for text, answers in asked.items()}
    windows = [(window, texts[text]) for text in texts for window in encoder.windows(text)]
    known = [REVISION, encoder.features, WORDS, MOST_VALUES, HELD_OUT, LEAST_GAIN, SHRINKAGE, list(texts.items())]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    path = folder / f"{encoder.identity}-{digest}.safetensors"
    try:
        encoder.keeper.load_state_dict(load_file(path))
        return
    except (FileNotFoundError, SafetensorError):
        pass
    _learn(encoder, windows, progress)
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


def _learn(
    encoder: Encoder, windows: Sequence[tuple[Window, Sequence[str]]], progress: Callable[[float, str], None]
) -> None:
    """Read the first windows, as many as it takes, and let the keeper learn from their words if that is a gain."""
    keeper = encoder.keeper
    features: list[Tensor] = []
    found: list[Tensor] = []
    due, before, ranked = WORDS, -math.inf, None
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        for part, asked in _words(encoder, windows[start : start + WINDOWS_AT_ONCE]):
            features.append(part)
            found.append(asked)
        ranked = None  # not yet with these
        count = sum(map(len, found))
        progress(0.0, f"which words are asked for: {count} words")
        if count * features[0].shape[1] >= MOST_VALUES:
            break
        if count >= due and start + WINDOWS_AT_ONCE < len(windows):
            ranked = _ranked(_learner(keeper, features, found), features, found)
            if ranked - before < LEAST_GAIN:
                break
            due, before = 2 * due, ranked
    if keeper.learnt:
        if ranked is None:
            ranked = _ranked(_learner(keeper, features, found), features, found)
        if not ranked - _ranked(keeper, features, found) >= LEAST_GAIN:  # nor where neither could be ranked
            return
    _taught(keeper, features, found)


@torch.no_grad()
def _words(encoder: Encoder, windows: Sequence[tuple[Window, Sequence[str]]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Features `[N, F]` bf16 and whether it was asked for `[N]`, of each word of each window."""
    for (window, answers), seen in zip(windows, encoder.read([window for window, _ in windows]), strict=True):
        features = encoder.keeper.features(seen.states.cpu(), seen.surprise, seen.word)
        yield features.to(torch.bfloat16), words_asked(encoder.reader, window, seen.word, answers)


def _learner(keeper: Keeper, features: Sequence[Tensor], found: Sequence[Tensor]) -> Keeper | None:
    """The keeper as it would be after learning from all but every so manyth window; None where those are too few."""
    learner = copy.deepcopy(keeper)
    rest = [place for place in range(len(found)) if place % HELD_OUT]
    return learner if _taught(learner, [features[place] for place in rest], [found[place] for place in rest]) else None


def _ranked(keeper: Keeper | None, features: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """How likely a word that was asked for ranks above one that was not (the area under the ROC curve), in every so manyth window;
    below all else without a keeper, or where there is nothing to rank."""
    asked = torch.cat(list(found[::HELD_OUT]))
    positive, negative = int(asked.sum()), int((~asked).sum())
    if keeper is None or not (positive and negative):
        return -math.inf
    order = keeper(torch.cat(list(features[::HELD_OUT])).float()).argsort()
    ranks = asked[order].nonzero()[:, 0].double() + 1
    return float((ranks.sum() - positive * (positive + 1) / 2) / (positive * negative))


def _taught(keeper: Keeper, features: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether the keeper could learn from these words: with too few that were asked for it stays as it is."""
    asked = torch.cat(list(found))
    enough = LEAST <= int(asked.sum()) < len(asked)
    if enough:
        keeper.learn(torch.cat(list(features)), asked)
    return enough


def _spelt(reader: Reader, ids: Sequence[int], word: Tensor) -> list[str]:
    """The text of each word, without spaces and capitals."""
    groups: list[list[int]] = [[] for _ in range(int(word[-1]) + 1 if len(word) else 0)]
    for token, number in zip(ids, word.tolist(), strict=True):
        groups[number].append(token)
    return [str(text).strip().casefold() for text in reader.tokenizer.batch_decode(groups)]
