"""From a row with named columns to an `Example`: what the `jsonl` and `hub` data sets share."""

from dataclasses import dataclass

from latentwire.data import Example, check, context_hash
from latentwire.data.files import describe, member
from latentwire.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column holds what.

    Attributes:
        context: Column of the context's text.
        question: Column of the question's text.
        answers: Column of the answers: one text, a list of texts, or SQuAD's `{"text": [...]}`.
        id: Column of the id. The default may be missing (then a row's number stands in), a chosen name may not.
        group: Column of the group. The default may be missing (then each context is a group), a chosen name may not.
    """

    context: str = "context"
    question: str = "question"
    answers: str = "answers"
    id: str = "id"
    group: str = "group"

    def example(self, row: object, number: str, where: str) -> Example:
        """The row as an example, named `number` where it has no id.

        Raises:
            DataError: A missing column, a value of the wrong type, or an empty one.
        """
        context = member(row, self.context, str, where)
        question = member(row, self.question, str, where)
        answers = _answers(member(row, self.answers, object, where), self.answers, where)
        identity = _name(row, self.id, number if self.id == "id" else None, where)
        group = _name(row, self.group, context_hash(context) if self.group == "group" else None, where)
        return check(Example(identity, context, question, answers, group), where)


def _name(row: object, column: str, fallback: str | None, where: str) -> str:
    """The column's text or whole number; `fallback` stands in for a missing one."""
    value = member(row, column, object, where)
    if value is None and fallback is not None:
        return fallback
    return str(value) if type(value) is int else member(row, column, str, where)


def _answers(value: object, column: str, where: str) -> tuple[str, ...]:
    if isinstance(value, dict):
        return _answers(value.get("text"), f"{column}.text", where)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        got = describe(value)
        raise DataError(f"{where}: expected '{column}' as text or a list of texts, got {got}; choose another column")
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}: expected texts in '{column}', got {describe(text)}; write it as text")
    return tuple(dict.fromkeys(texts))
