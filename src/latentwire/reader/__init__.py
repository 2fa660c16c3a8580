"""`Reader`: a frozen causal LM with its tokenizer and its prompt layout. It knows no method.

prompt segments + Prefix ──lay_in──▶ Inputs ──prefill──▶ State ──▶ answer states, greedy answers
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from latentwire.data import Example
from latentwire.errors import ReaderError
from latentwire.reader.attention import use_folded_attention
from latentwire.reader.inputs import Inputs, Level, Prefix, joined, levels, pad_left, positions
from latentwire.reader.prompts import Layout, Prompt, Prompter, Scope, Slot
from latentwire.reader.startup import expect_one_reading, stop_ids
from latentwire.reader.state import Generation, State, fork, narrowed

__all__ = ["Generation", "Inputs", "Layout", "Prefix", "Prompt", "Reader", "Scope", "Slot", "State", "fork"]

IGNORE = -100
TABLE_BYTES = 32 * 2**20
LOGIT_BYTES = 64 * 2**20
WORTH_SHARING = 32
ANSWER_TOKENS = 64


class Reader:
    """A frozen causal LM behind one set of calls.

    Args:
        model: A Hugging Face causal LM; its parameters are frozen here.
        tokenizer: Its tokenizer.
        name: What it was loaded by; its last part is how results name the reader.
        layout: Prompt layout.
        fingerprint: Identity of the weights.
        max_prompt_tokens: Longest prompt; the model's own limit, less room for an answer, when None.
        too_long: What happens to a longer one, see `Prompter`.

    Raises:
        ReaderError: The tokenizer has no EOS or pad, or logits from ids differ from logits from embedded ids.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        layout: Layout,
        fingerprint: str,
        max_prompt_tokens: int | None = None,
        too_long: Literal["error", "truncate"] = "error",
    ) -> None:
        for token in ("eos", "pad"):
            if getattr(tokenizer, f"{token}_token_id") is None:
                raise ReaderError(f"reader '{name}': expected a tokenizer with a {token} token, got none; set one")
        self.model = model.eval().requires_grad_(False)
        use_folded_attention(self.model)
        self.tokenizer = tokenizer
        self.source, self.name = name, name.rstrip("/").rsplit("/", 1)[-1]
        self.fingerprint = fingerprint
        self.most_positions = getattr(model.config, "max_position_embeddings", 0) or sys.maxsize
        most = max_prompt_tokens or self.most_positions - ANSWER_TOKENS
        self.prompter = Prompter(tokenizer, layout, most, too_long)
        self.end_ids = frozenset(stop_ids(model, tokenizer))
        self.stop_ids = self.end_ids | {self.prompter.stop_id}
        self._kept: tuple[tuple[int, ...], Tensor, State] | None = None
        self.shares = True  # whether what rows have in common is read once
        self._window = getattr(model.config, "sliding_window", None) or float("inf")
        self._breaks_line = lru_cache(maxsize=None)(lambda token: "\n" in tokenizer.decode([token]))
        expect_one_reading(self)

    @property
    def device(self) -> torch.device:
        """Where the embedding table lives."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the reader computes in."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.dtype

    @property
    def width(self) -> int:
        """`D`, the width of an input embedding."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """`V`, rows of the input embedding table."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def logits_at_once(self) -> int:
        """How many positions' fp32 logits 64 MB hold."""
        return max(1, LOGIT_BYTES // (4 * self.vocab_size))

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings `[..., D]` of ids `[...]`, as the model itself computes them (Gemma scales here)."""
        embeds: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embeds

    def table(self, rows: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of row ids `[n]` and their embeddings `[n, D]` in float32, 32 MB at a time."""
        rows = torch.arange(self.vocab_size) if rows is None else rows
        for chunk in rows.split(max(1, TABLE_BYTES // (4 * self.width))):
            yield chunk, self.embed(chunk).float()

    def prompt(self, example: Example, scope: Scope) -> Prompt:
        """The example as token-id segments, see `prompts`."""
        return self.prompter.prompt(example, scope)

    def lay_in(self, prompts: Sequence[Prompt], prefix: Prefix) -> Inputs:
        """Put each prefix where its prompt's slot is: `[before, prefix, after]`, padded on the left."""
        rows = [
            torch.cat([self._embed_ids(prompt.before), row.to(self.dtype), self._embed_ids(prompt.after)])
            for prompt, row in zip(prompts, prefix.rows(), strict=True)
        ]
        before = {prompt.before for prompt in prompts}
        return replace(pad_left(rows), opening=before.pop() if len(before) == 1 else ())

    def prefill(self, inputs: Inputs, answer_tokens: int = ANSWER_TOKENS) -> State:
        """Read the inputs once; the state then serves scoring and generation of at most `answer_tokens`.

        What rows begin with in common, all of them (template, worked examples) or neighbours with one context, is read once.
        """
        return self._read(self._levels(inputs, answer_tokens))[1]

    def _levels(self, inputs: Inputs, answer_tokens: int) -> list[Level]:
        """The readings that inputs and `answer_tokens` more are worth.

        Padding stands between the parts of a row, which a sliding window would count: where they do not fit the window of
        such a model together, rows share less, or are read apart.
        """
        fits = inputs.mask.shape[1] + answer_tokens <= self._window
        worth = WORTH_SHARING if self.shares and fits else sys.maxsize
        found = levels(inputs, worth)
        columns = sum(part.inputs.mask.shape[1] for part in found) + answer_tokens
        return found if columns <= self._window else levels(inputs, worth, stems=False)

    def _read(self, parts: Sequence[Level]) -> tuple[list[Tensor], State]:
        """Last hidden states `[N, T, D]` of each level, and the state after the last. An opening is read once and for all."""
        cache, hidden = None, []
        seen = torch.ones(1, 0, dtype=torch.bool, device=self.device)
        for part in parts:
            if part.inputs.opening:
                states, state = self._opened(part.inputs.opening)
                cache, seen = fork(state).cache, state.mask
                hidden.append(states)
                continue
            if cache is not None:
                cache.batch_select_indices(part.follows)
            seen = torch.cat([seen[part.follows], part.inputs.mask], dim=1)
            out = self._forward(seen, inputs_embeds=part.inputs.embeds, past_key_values=cache)
            cache = out.past_key_values
            hidden.append(out.last_hidden_state)
        return hidden, State(cache, seen, hidden[-1][:, -1])

    @torch.no_grad()
    def _opened(self, ids: tuple[int, ...]) -> tuple[Tensor, State]:
        """Hidden states `[1, T, D]` of what prompts open with, and the state after it; the last opening is kept."""
        if self._kept is None or self._kept[0] != ids:
            (hidden,), state = self._read([Level(pad_left([self._embed_ids(ids)]), torch.zeros(1, dtype=torch.long))])
            self._kept = ids, hidden, state
        return self._kept[1:]

    def extend(self, state: State, ids: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        """Read further ids `[B, A]` (`mask [B, A]`): hidden states `[B, A, D]` after each, and the new state.

        The cache of `state` is consumed: copy the state first (`fork`) to use it twice.
        """
        seen = torch.cat([state.mask, mask], dim=1)
        out = self._forward(seen, inputs_embeds=self.embed(ids), past_key_values=state.cache)
        return out.last_hidden_state, State(out.past_key_values, seen, out.last_hidden_state[:, -1])

    def answer_states(self, state: State, labels: Tensor) -> Tensor:
        """Hidden states `[B, A, D]` that predict each of `labels [B, A]` (padded with `IGNORE`), given the ones before it.

        The state stays usable.
        """
        if labels.shape[1] == 1:
            return state.hidden[:, None]
        fed = labels[:, :-1]
        hidden, _ = self.extend(fork(state), fed.clamp(min=0), fed != IGNORE)
        return torch.cat([state.hidden[:, None], hidden], dim=1)

    def append(self, inputs: Inputs, labels: Tensor) -> Inputs:
        """The inputs followed by all labels but the last (whose logits would predict what comes after them)."""
        fed = labels[:, :-1]
        embeds = torch.cat([inputs.embeds, self.embed(fed.clamp(min=0))], dim=1)
        return Inputs(embeds, torch.cat([inputs.mask, fed != IGNORE], dim=1), inputs.opening)

    def hidden_states(self, inputs: Inputs) -> Tensor:
        """Last hidden states `[B, T, D]` before the output head, differentiable."""
        hidden: Tensor = self._forward(inputs.mask, inputs_embeds=inputs.embeds, use_cache=False).last_hidden_state
        return hidden

    def forced_states(self, inputs: Inputs, labels: Tensor) -> Tensor:
        """Last hidden states `[B, T + A - 1, D]` over the inputs and all of `labels [B, A]` but the last, differentiable.

        What rows begin with in common, all of them or neighbours with one context, is read once (`levels`).
        """
        *above, rows = self._levels(inputs, labels.shape[1])
        if not above:
            return self.hidden_states(self.append(inputs, labels))
        parts = [*above, Level(self.append(rows.inputs, labels), rows.follows)]
        return joined(parts, self._read(parts)[0])

    def head(self, hidden: Tensor) -> Tensor:
        """Logits `[..., V]` of hidden states `[..., D]`.

        One product of two matrices: of a slice `[B, 1, D]` torch would make a batched one and copy the weight `B` times.
        """
        config = self.model.config
        logits: Tensor = self.model.get_output_embeddings()(hidden.reshape(-1, hidden.shape[-1]))
        scale = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)  # Cohere, Granite
        if scale != 1.0:
            logits = scale * logits
        cap = getattr(config, "final_logit_softcapping", None)
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        return logits.reshape(*hidden.shape[:-1], -1)

    @torch.no_grad()
    def generate(self, state: State, max_new_tokens: int, one_line: bool = True) -> list[Generation]:
        """Greedy answers from a state, which is consumed. Each ends at EOS, end of turn or, if `one_line`, a line break."""
        stops = self.stops if one_line else self.end_ids.__contains__
        answers: list[list[int]] = [[] for _ in range(len(state.hidden))]
        rows, running = list(range(len(answers))), torch.ones(len(answers), dtype=torch.bool)
        for step in range(max_new_tokens):
            tokens = self.head(state.hidden).argmax(dim=-1)
            for place, token in enumerate(tokens.tolist()):
                if running[place]:
                    answers[rows[place]].append(token)
                    running[place] = not stops(token)
            if not running.any() or step + 1 == max_new_tokens:
                break
            if 2 * int(running.sum()) <= len(rows):  # most are done: read on with the others alone
                left = running.nonzero()[:, 0]
                state, tokens = narrowed(state, left.to(tokens.device)), tokens[left.to(tokens.device)]
                rows, running = [rows[place] for place in left.tolist()], running[left]
            alive = running.to(tokens.device)[:, None]
            _, state = self.extend(state, tokens[:, None], alive)
        return [Generation(tuple(ids), self.text(ids, one_line)) for ids in answers]

    @torch.no_grad()
    def answer(self, prefix: Prefix, question: str, max_new_tokens: int = 32) -> Generation:
        """The greedy answer to a question about what stands in the prefix, of which all rows go into one prompt, in order.

        Raises:
            PromptError: Prefix, question and answer do not fit the reader together.
        """
        prompt = self.prompter.around(question, sum(len(row) for row in prefix.rows()))
        inputs = self.lay_in([prompt], Prefix.stack([torch.cat(prefix.rows())]))
        return self.generate(self.prefill(inputs, max_new_tokens), max_new_tokens)[0]

    def stops(self, token: int) -> bool:
        """Whether generation ends at this token."""
        return token in self.stop_ids or bool(self._breaks_line(token))

    def pad_labels(self, labels: Sequence[Sequence[int]]) -> Tensor:
        """Label ids `[B, A]`, padded on the right with `IGNORE`."""
        rows = [torch.tensor(row, device=self.device) for row in labels]
        return pad_sequence(rows, batch_first=True, padding_value=IGNORE)

    @cached_property
    def rms(self) -> float:
        """Root mean square of the embedding table's entries: the magnitude that a prefix must have."""
        total = sum(float(rows.double().square().sum()) for _, rows in self.table())
        return float((total / (self.vocab_size * self.width)) ** 0.5)

    def _forward(self, mask: Tensor, **given: Any) -> Any:
        """The decoder's output on the last positions of `mask [B, T]`, cached ones before them."""
        last = given["inputs_embeds"].shape[1]
        places = positions(mask)[:, -last:]
        return self.model.get_decoder()(attention_mask=mask.long(), position_ids=places, **{"use_cache": True, **given})

    def _embed_ids(self, ids: Sequence[int]) -> Tensor:
        return self.embed(torch.tensor(ids, dtype=torch.long))

    def text(self, ids: Sequence[int], one_line: bool = True) -> str:
        """The text of generated ids, without the stop that ended them."""
        if not one_line:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        kept = ids[:-1] if ids and self.stops(ids[-1]) else ids
        last = str(self.tokenizer.decode(ids[-1:])).split("\n")[0] if len(kept) < len(ids) else ""
        special = ids[-1:] and ids[-1] in self.tokenizer.all_special_ids
        return (str(self.tokenizer.decode(kept, skip_special_tokens=True)) + ("" if special else last)).strip()
