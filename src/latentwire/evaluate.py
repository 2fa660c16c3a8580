"""One rung of the ladder: carry every example's slot over the wire, let the reader answer, keep what was measured.

prompts ─▶ encode ─▶ transmit ─▶ prefix ─▶ lay in ─▶ prefill ─┬─▶ score the gold answer
                                                              └─▶ greedy answer
"""

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentwire.codecs import transmit
from latentwire.data import Example
from latentwire.methods import Counts, Method
from latentwire.methods.decoders import nearest_rows
from latentwire.metrics import DecoderQuality, decoder_quality, exact_match, f1
from latentwire.peak import peak_memory, reset_peak_memory
from latentwire.reader import IGNORE, Inputs, Prompt, Reader, Scope
from latentwire.remembered import anew, remembered_bytes


@dataclass(frozen=True)
class Outcome:
    """What the reader did with one example's inputs. Token accuracies are over the gold answer's positions."""

    answer: str
    answer_nll: float
    first_token_nll: float
    forced_accuracy: float
    free_accuracy: float


@dataclass(frozen=True)
class RungResult:
    """Everything measured on one rung, one entry per example in the lists."""

    reader: str
    rung: str
    scope: Scope
    outcomes: list[Outcome]
    f1: list[float]
    em: list[float]
    bytes_on_wire: list[int]
    num_positions: list[int]
    encode_seconds: float
    prefill_seconds: float
    generate_seconds: float
    peak_memory_bytes: float | None
    note: str
    quality: DecoderQuality | None = None
    quality_heldout: DecoderQuality | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RungResult":
        """The result that `to_dict` wrote."""
        outcomes = [Outcome(**outcome) for outcome in values["outcomes"]]
        quality = {key: values[key] and DecoderQuality(**values[key]) for key in ("quality", "quality_heldout")}
        return cls(**{**values, "outcomes": outcomes, **quality})


@dataclass
class _Work:
    """What reading one set of inputs cost and gave."""

    outcome: Outcome
    prefill_seconds: float
    generate_seconds: float
    peak: float | None = None


@dataclass
class Evaluator:
    """Runs rungs on one reader and one list of examples. Inputs that were read before are not read again.

    Attributes:
        reader: The frozen model.
        examples: What is asked.
        batch: Prompts read at once.
        max_new_tokens: Longest answer.
        progress: Called with (examples done, examples in all).
    """

    reader: Reader
    examples: Sequence[Example]
    batch: int
    max_new_tokens: int
    progress: Callable[[int, int], None] = lambda done, total: None
    _seen: dict[str, _Work] = field(default_factory=dict)
    _paces: dict[str, float] = field(default_factory=dict)

    @torch.no_grad()
    def run(self, name: str, method: Method, scope: Scope) -> RungResult:
        """One rung in one scope."""
        prompts = [self.reader.prompt(example, scope) for example in self.examples]
        order = sorted(range(len(prompts)), key=lambda index: _place(self.examples[index], prompts[index]))
        middle = (len(order) - 1) // 2 // self.batch * self.batch  # where the batch of middling lengths starts
        works: dict[int, _Work] = {}
        sizes: dict[int, tuple[int, int]] = {}
        encode_seconds, decode_seconds, prefill_seconds = 0.0, [], 0.0
        cut: list[bool] = []
        reset_peak_memory()
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            slots = [prompts[index].slot for index in chosen]
            begin = self._clock()
            distinct = list(dict.fromkeys(slots))
            with anew() if start == middle else nullcontext():
                found = dict(zip(distinct, method.encode(distinct, self.reader), strict=True))
            if start == middle:
                encode_seconds = (self._clock() - begin) / len(distinct)
            latents = [found[slot] for slot in slots]
            received = [transmit(latent) for latent in latents]
            arrived = self._clock()
            prefix = method.prefix([latent for latent, _ in received], self.reader)
            inputs = self.reader.lay_in([prompts[index] for index in chosen], prefix)
            decode_seconds.append((self._clock() - arrived) / len(chosen))
            cut += method.cut(slots, latents) or []
            for index, (_, count), row in zip(chosen, received, prefix.mask, strict=True):
                sizes[index] = (count, int(row.sum()))
            keys = [f"{index}-{_digest(row[mask])}" for index, row, mask in zip(chosen, *_rows(inputs), strict=True)]
            works |= dict(zip(chosen, self._read(chosen, keys, inputs), strict=True))
            if start == middle:
                prefill_seconds = self._pace(chosen, keys, inputs)
            self.progress(start + len(chosen), len(order))
        return self._result(
            name,
            scope,
            prompts,
            works,
            sizes,
            encode_seconds,
            _median(decode_seconds) + prefill_seconds,
            _remark(prompts, cut, method.cut([], []) is not None),
        )

    def _read(self, chosen: Sequence[int], keys: Sequence[str], inputs: Inputs) -> list[_Work]:
        new = [place for place, key in enumerate(keys) if key not in self._seen]
        if new:
            part = Inputs(inputs.embeds[new], inputs.mask[new])  # without an opening: the same reading in every scope
            found = self._answer([chosen[place] for place in new], part)
            peak = peak_memory()
            peak = peak and peak - remembered_bytes()
            for place, work in zip(new, found, strict=True):
                work.peak = peak
                self._seen[keys[place]] = work
        return [self._seen[key] for key in keys]

    def _answer(self, chosen: Sequence[int], inputs: Inputs) -> list[_Work]:
        gold = [self.reader.prompter.labels(self.examples[index].answers[0]) for index in chosen]
        labels = self.reader.pad_labels(gold)
        begin = self._clock()
        state = self.reader.prefill(inputs, max(labels.shape[1], self.max_new_tokens))
        prefill = (self._clock() - begin) / len(chosen)
        hidden = self.reader.answer_states(state, labels)
        begin = self._clock()
        answers = self.reader.generate(state, self.max_new_tokens)
        generate = (self._clock() - begin) / len(chosen)
        works = []
        for row, (ids, answer) in enumerate(zip(gold, answers, strict=True)):
            nll, right = self._teacher_forced(hidden[row], labels[row])
            same = [got == wanted for got, wanted in zip(answer.ids, ids, strict=False)]
            outcome = Outcome(answer.text, sum(nll) / len(nll), nll[0], right, sum(same) / len(ids))
            works.append(_Work(outcome, prefill, generate))
        return works

    def _pace(self, chosen: Sequence[int], keys: Sequence[str], inputs: Inputs) -> float:
        """Seconds to read a row beyond the opening, which is there: one row for each context, since others would share it."""
        contexts = [self.examples[index].context for index in chosen]
        own = [contexts.index(context) for context in dict.fromkeys(contexts)]
        if len(own) == len(chosen) and not inputs.opening:
            return self._seen[keys[0]].prefill_seconds  # that was such a reading
        read = " ".join(keys[place] for place in own)
        if read not in self._paces:
            for rows in (own[:1], own):  # the first reads the opening
                begin = self._clock()
                part = replace(inputs, embeds=inputs.embeds[rows], mask=inputs.mask[rows])
                self.reader.prefill(part, self.max_new_tokens)
                self._paces[read] = (self._clock() - begin) / len(rows)
        return self._paces[read]

    def _teacher_forced(self, hidden: Tensor, labels: Tensor) -> tuple[list[float], float]:
        """NLL of each label, and the share that is the likeliest token; logits 64 MB at a time."""
        size, due = self.reader.logits_at_once, labels != IGNORE
        nll: list[float] = []
        right = 0
        for states, wanted in zip(hidden[due].split(size), labels[due].split(size), strict=True):
            logits = self.reader.head(states).float()
            nll += torch.nn.functional.cross_entropy(logits, wanted, reduction="none").tolist()
            right += int((logits.argmax(dim=-1) == wanted).sum())
        return nll, right / len(nll)

    def _clock(self) -> float:
        """Seconds now, once the device has done what it was given."""
        if self.reader.device.type == "cuda":
            torch.cuda.synchronize(self.reader.device)
        return time.perf_counter()

    def _result(
        self,
        name: str,
        scope: Scope,
        prompts: Sequence[Prompt],
        works: dict[int, _Work],
        sizes: dict[int, tuple[int, int]],
        encode_seconds: float,
        prefill_seconds: float,
        note: str,
    ) -> RungResult:
        ordered = [works[index] for index in range(len(prompts))]
        outcomes = [work.outcome for work in ordered]
        peaks = [work.peak for work in ordered if work.peak is not None]
        timed = list(works.values())[self.batch :] or ordered
        return RungResult(
            reader=self.reader.name,
            rung=name,
            scope=scope,
            outcomes=outcomes,
            f1=[f1(out.answer, ex.answers) for out, ex in zip(outcomes, self.examples, strict=True)],
            em=[exact_match(out.answer, ex.answers) for out, ex in zip(outcomes, self.examples, strict=True)],
            bytes_on_wire=[sizes[index][0] for index in range(len(prompts))],
            num_positions=[sizes[index][1] for index in range(len(prompts))],
            encode_seconds=encode_seconds,
            prefill_seconds=prefill_seconds,
            generate_seconds=statistics.median(work.generate_seconds for work in timed),
            peak_memory_bytes=max(peaks) if peaks else None,
            note=note,
        )


@torch.no_grad()
def measure_decoder(method: Method, reader: Reader, weights: Counts) -> DecoderQuality | None:
    """Quality of a per-token method over the tokens that `weights [V]` counts; None where they are fewer than two."""
    ids = torch.from_numpy(np.flatnonzero(weights))
    if len(ids) < 2:
        return None
    restored = torch.cat([method.restore(part, reader) for part in ids.split(1024)])
    true = reader.embed(ids).float()
    recovered = (_nearest_embeddings(restored, reader) == true).all(dim=1)
    return decoder_quality(restored, true, torch.from_numpy(weights)[ids].to(true.device), recovered)


def _nearest_embeddings(restored: Tensor, reader: Reader) -> Tensor:
    """The table row `[N, D]` nearest to each restored embedding, without a copy of the whole table."""
    nearest, least = restored, torch.full((len(restored), 1), torch.inf, device=restored.device)
    for _, embeds in reader.table():
        closest = embeds[nearest_rows(restored, embeds)]
        distance = (restored - closest).square().sum(dim=1, keepdim=True)
        nearest = torch.where(distance < least, closest, nearest)
        least = torch.minimum(least, distance)
    return nearest


def _remark(prompts: Sequence[Prompt], cut: Sequence[bool], cuts: bool) -> str:
    """What a reader of the row must know about lost text."""
    shortened = sum(prompt.truncated_tokens > 0 for prompt in prompts)
    remarks = [f"{shortened} of {len(prompts)} prompts cut to fit the reader"] if shortened else []
    if cuts:
        remarks.append(f"{sum(cut)} of {len(prompts)} contexts cut" if any(cut) else "no cut happened")
    return "; ".join(remarks)


def _place(example: Example, prompt: Prompt) -> tuple[int, str, int]:
    """Where a prompt is read, whatever the scope: among its length, and the questions of one context together."""
    return len(example.context), example.context, len(prompt.ids)


def _rows(inputs: Inputs) -> tuple[Tensor, Tensor]:
    return inputs.embeds, inputs.mask


def _digest(embeds: Tensor) -> str:
    return hashlib.sha256(embeds.float().cpu().contiguous().numpy().tobytes()).hexdigest()


def _median(seconds: list[float]) -> float:
    """Median after the first batch, which warms up."""
    return statistics.median(seconds[1:] or seconds)


def shown(show: Callable[[float, str], None]) -> Callable[[int, int], None]:
    """An evaluator's progress on a bar."""
    return lambda done, total: show(done / total, f"{done}/{total}")
