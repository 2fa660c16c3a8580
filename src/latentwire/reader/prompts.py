"""The one place that lays a prompt out. Every rung of the ladder gets the same token ids in the same order.

A prompt is three token-id segments, *before / slot / after*. The slot is what may pass a bottleneck:

    scope "context":  before = BOS, template, worked examples   slot = the context   after = question, "Answer:"
    scope "prompt":   before = nothing                          slot = everything    after = nothing

Segments are tokenised apart, so that the ids do not depend on what stands in the slot. Text that spells a special token,
such as an end of turn, stays text: only the template ends a turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from latentwire.data import Example
from latentwire.errors import PromptError

Scope = Literal["prompt", "context"]
Style = Literal["plain", "chat"]

INSTRUCTION = "Answer the question with a few words from the passage."
ANCHOR = "Answer:"
_MARK = "\u241eslot\u241e"

WORKED_EXAMPLES = (
    (
        "The Velden lighthouse was built in 1874 by the engineer Ruth Almeida. It is 41 metres tall, and its lamp was"
        " lit with whale oil until the harbour received electricity. Since 1990 it has been a small museum of maps.",
        "Who built the Velden lighthouse?",
        "Ruth Almeida",
    ),
    (
        "Most honey at the Saturday market comes from Tarn valley, where beekeepers move their hives three times a year."
        " In spring the bees feed on cherry trees, in summer on lavender, and in autumn on heather.",
        "What do the bees feed on in summer?",
        "lavender",
    ),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a reader likes to be asked: its own chat template or plain text, with 0 to 2 worked examples."""

    style: Style = "plain"
    shots: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.shots <= len(WORKED_EXAMPLES):
            raise PromptError(f"expected 0 to {len(WORKED_EXAMPLES)} worked examples, got {self.shots}")


@dataclass(frozen=True, slots=True)
class Slot:
    """What passes the bottleneck: the reader's token ids, and the text pieces that they were tokenised from.

    One piece, the context, or three: what stands before the context, the context, what stands after it.
    """

    pieces: tuple[str, ...]
    ids: tuple[int, ...]

    @property
    def context(self) -> str:
        """The context's text."""
        return self.pieces[len(self.pieces) // 2]

    @property
    def text(self) -> str:
        """All text of the slot."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One laid-out prompt. `truncated_tokens` counts what an explicit recipe choice cut from the context."""

    example_id: str
    before: tuple[int, ...]
    slot: Slot
    after: tuple[int, ...]
    truncated_tokens: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids in reading order."""
        return self.before + self.slot.ids + self.after


@dataclass(frozen=True, slots=True)
class Turn:
    """One question of a conversation.

    Attributes:
        has_context: Whether something stands before it that it asks about.
        question: What is asked.
        answer: What was answered, if it was.
    """

    has_context: bool
    question: str
    answer: str | None = None


class Prompter:
    """Lays examples out for one tokenizer and one layout.

    Args:
        tokenizer: The reader's Hugging Face tokenizer.
        layout: Style and number of worked examples.
        max_tokens: Longest prompt the reader takes, in tokens.
        too_long: "error" names the example; "truncate" cuts the end of the context and counts the cut.
    """

    def __init__(
        self, tokenizer: Any, layout: Layout, max_tokens: int, too_long: Literal["error", "truncate"] = "error"
    ) -> None:
        if layout.style == "chat" and not getattr(tokenizer, "chat_template", None):
            raise PromptError(
                "expected a tokenizer with a chat template for layout 'chat', got one without; use reader.style=plain"
            )
        self._tokenizer = tokenizer
        self.layout = layout
        self._max_tokens = max_tokens
        self._too_long = too_long
        chat = layout.style == "chat"
        self._special = [str(token) for token in tokenizer.added_tokens_decoder.values() if chat and token.special]
        self.stop_id = self._find_stop_id()
        self._before_text, self._after_template = self._frame()
        self._before = self._begin(self._template_tokens(self._before_text))

    def prompt(self, example: Example, scope: Scope) -> Prompt:
        """The example's prompt.

        Raises:
            PromptError: The prompt is longer than `max_tokens` and the recipe does not allow a cut; or, within a chat
                template, the question spells one of its special tokens.
        """
        after_text, after = self._ask(example.question, f"example '{example.id}'")
        context = self._tokens(example.context)
        cut = max(0, len(self._before) + len(context) + len(after) - self._max_tokens)
        if cut and (self._too_long == "error" or cut >= len(context)):
            raise PromptError(
                f"example '{example.id}': expected at most {self._max_tokens} prompt tokens, got"
                f" {self._max_tokens + cut}; raise reader.max_prompt_tokens, or set reader.too_long=truncate"
            )
        context_text = example.context
        if cut:
            context_text, kept = self.shorten(context, len(context) - cut)
            context, cut = kept, len(context) - len(kept)
        if scope == "context":
            return Prompt(example.id, self._before, Slot((context_text,), context), after, cut)
        pieces = (self._before_text, context_text, after_text)
        return Prompt(example.id, (), Slot(pieces, self._before + context + after), (), cut)

    def around(self, question: str, positions: int) -> Prompt:
        """What stands around `positions` positions that take a context's place; the slot is empty.

        Raises:
            PromptError: They do not fit the reader with the question, or the question spells a special token.
        """
        after = self._ask(question, "question")[1]
        size = len(self._before) + positions + len(after)
        if size > self._max_tokens:
            raise PromptError(
                f"expected at most {self._max_tokens} positions for template, context and question, got {size}, of which"
                f" {positions} for the context; leave some of it out or compress it further"
            )
        return Prompt("", self._before, Slot(("",), ()), after)

    def conversation(self, turns: Sequence[Turn], instruction: str = INSTRUCTION) -> list[tuple[int, ...]]:
        """What stands around the contexts of several turns, one more segment of ids than there are contexts, BOS first.

        One turn with a context is laid out exactly as `prompt` does it.

        Raises:
            PromptError: A text spells a special token of the template, or what marks the place of a context.
        """
        spoken = [instruction, *(turn.question for turn in turns), *(turn.answer or "" for turn in turns)]
        spelt = [token for token in [*self._special, _MARK] if any(token in text for text in spoken)]
        if spelt:
            raise PromptError(f"expected text without special tokens, got {', '.join(spelt)}; take them out")
        asked = [
            (_question(_MARK, turn.question) if turn.has_context else f"Question: {turn.question}", turn.answer)
            for turn in turns
        ]
        text = self._laid_out(instruction, [*self._shown(), *asked])
        first, *others = text.split(_MARK)
        return [self._begin(self._template_tokens(first)), *map(self._template_tokens, others)]

    def labels(self, answer: str) -> tuple[int, ...]:
        """Token ids of `answer` as it follows the anchor, and the stop that ends it (never without a stop)."""
        return (*self._tokens(" " + answer.strip()), self.stop_id)

    def slot(self, *pieces: str) -> Slot:
        """Text pieces, one or three, as a slot: tokenised apart, with BOS where they hold a whole prompt."""
        if len(pieces) == 1:
            return Slot(pieces, self._tokens(pieces[0]))
        before, context, after = pieces
        ids = self._template_tokens(before) + self._tokens(context) + self._template_tokens(after)
        return Slot(pieces, self._begin(ids))

    def _ask(self, question: str, where: str) -> tuple[str, tuple[int, ...]]:
        """What follows the context: its text and ids."""
        spelt = [token for token in self._special if token in question]
        if spelt:
            raise PromptError(
                f"{where}: expected a question without special tokens, got {', '.join(spelt)}; take them out, or set"
                " reader.style=plain, where they are text"
            )
        text = self._after_template.replace(_MARK, question)
        return text, self._template_tokens(text)

    def _tokens(self, text: str, special: bool = False) -> tuple[int, ...]:
        """Ids of a text; where it spells a special token, that token only if `special`, else the text of it."""
        found = self._tokenizer(text, add_special_tokens=False, verbose=False, split_special_tokens=not special)
        return tuple(found["input_ids"])

    def _template_tokens(self, text: str) -> tuple[int, ...]:
        return self._tokens(text, special=self.layout.style == "chat")

    def shorten(self, ids: tuple[int, ...], limit: int) -> tuple[str, tuple[int, ...]]:
        """The longest leading text of `ids` in whole characters that is at most `limit` tokens, and those tokens."""
        text, kept = "", ids
        for size in range(limit, -1, -1):
            text = str(self._tokenizer.decode(ids[:size], clean_up_tokenization_spaces=False)).rstrip("\ufffd")
            kept = self._tokens(text)
            if len(kept) <= limit:
                break
        return text, kept

    def _begin(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Exactly one BOS where the tokenizer has one."""
        bos = self._tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == (bos,) else (bos, *ids)

    def _frame(self) -> tuple[str, str]:
        """Text before the context, and text after it with `_MARK` in the question's place."""
        text = self._laid_out(INSTRUCTION, [*self._shown(), (_question(_MARK, _MARK), None)])
        before, middle, end = text.split(_MARK)
        return before, middle + _MARK + end

    def _shown(self) -> list[tuple[str, str | None]]:
        return [(_question(context, question), answer) for context, question, answer in self._shots()]

    def _laid_out(self, instruction: str, turns: Sequence[tuple[str, str | None]]) -> str:
        """Turns of what is asked and what was answered as one text, ready for the answer to the last."""
        if self.layout.style == "plain":
            shown = "".join(f"{asked}\n{ANCHOR} {answer}\n\n" for asked, answer in turns[:-1])
            return f"{instruction}\n\n{shown}{turns[-1][0]}\n{ANCHOR}"
        messages: list[dict[str, str]] = []
        for number, (asked, answer) in enumerate(turns):
            lead = f"{instruction}\n\n" if number == 0 else ""
            messages.append({"role": "user", "content": lead + asked})
            if number + 1 < len(turns):
                messages.append({"role": "assistant", "content": f"{ANCHOR} {answer}"})
        return self._render(messages, add_generation_prompt=True) + ANCHOR

    def _shots(self) -> Sequence[tuple[str, str, str]]:
        return WORKED_EXAMPLES[: self.layout.shots]

    def _find_stop_id(self) -> int:
        """What ends an answer: a line break in plain text, the template's end of turn in a chat."""
        if self.layout.style == "plain":
            return self._tokens("\n")[-1]
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        ending = self._tokens(self._render(messages, add_generation_prompt=False).split(_MARK)[1], special=True)
        special = set(self._tokenizer.all_special_ids)
        return next((token for token in ending if token in special), int(self._tokenizer.eos_token_id))

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        )


def _question(context: str, question: str) -> str:
    return f"{context}\n\nQuestion: {question}"
