"""A page: sections of words, charts, tables and answers, rendered once as HTML and once as Markdown.

Both renderings come from the same dataclasses, so the two files never say different things.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from latentwire.errors import RunError


@dataclass(frozen=True)
class Chart:
    """An inline SVG that this package drew, with the caption under it."""

    caption: str
    svg: str

    @property
    def markup(self) -> Markup:
        """The SVG as it stands: its text was escaped when it was drawn."""
        return Markup(self.svg)


@dataclass(frozen=True)
class Table:
    """A table of finished strings; the first ``num_headers`` columns name the row and stand left.

    ``headline`` is the index of the row the page is about, ``breaks`` the rows where a new group begins, and ``notes``
    stand under the table, numbered from 1.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_headers: int = 1
    headline: int | None = None
    breaks: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One rung's answer to one question. ``equal`` compares it with the text's answer, ``None`` for the text itself."""

    rung: str
    text: str
    f1: float | None = None
    equal: bool | None = None

    @property
    def mark(self) -> str:
        """The words that follow the rung's name."""
        if self.equal is None:
            return ""
        return "= equal to the text's" if self.equal else "≠ different"


@dataclass(frozen=True)
class Question:
    """A question with its gold answers and what every rung answered. Untrusted text."""

    id: str
    text: str
    gold: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Section:
    """One heading and what stands under it. ``folded`` sections open on demand; ``code`` is shown as it stands."""

    id: str
    heading: str
    paragraphs: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    questions: tuple[Question, ...] = ()
    code: str | None = None
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A whole report. ``tone`` picks the colour of the headline and is said in words as well."""

    title: str
    kind: str
    headline: str
    statement: str
    facts: str
    sections: tuple[Section, ...]
    tone: str = "plain"


def write_page(folder: Path, page: Page) -> Path:
    """Write ``report.html`` and ``report.md`` into the folder and return the path of the HTML.

    Raises:
        RunError: the folder cannot be written.
    """
    html = folder / "report.html"
    try:
        html.write_text(render_html(page), encoding="utf-8")
        (folder / "report.md").write_text(render_markdown(page), encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"The report cannot be written to {folder} ({error}). Free space or choose another folder."
        ) from error
    return html


def render_html(page: Page) -> str:
    """One self-contained HTML document; every string is escaped."""
    return _template().render(page=page)


def render_markdown(page: Page) -> str:
    """The same page as GitHub Markdown, without the charts."""
    parts = [
        f"# {_inline(page.title)}",
        f"**{_inline(page.headline)}.** {_inline(page.statement)}",
        _inline(page.facts),
    ]
    for section in page.sections:
        parts += [f"## {_inline(section.heading)}", *(_inline(text) for text in section.paragraphs)]
        parts += [f"*Chart in report.html: {_inline(chart.caption)}*" for chart in section.charts]
        for table in section.tables:
            parts += [_inline(table.caption), _markdown_table(table.columns, table.rows, table.num_headers)]
            parts += [_inline(f"[{number}] {note}") for number, note in enumerate(table.notes, start=1)]
        if section.questions:
            parts.append(_markdown_answers(section.questions))
        if section.code is not None:
            parts.append(_fenced(section.code))
    return "\n\n".join(parts) + "\n"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html")


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], num_headers: int) -> str:
    rule = ["---" if index < num_headers else "---:" for index in range(len(columns))]
    lines = [[_inline(title) for title in columns], rule, *([_inline(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_answers(questions: Sequence[Question]) -> str:
    rungs = list(dict.fromkeys(answer.rung for question in questions for answer in question.answers))
    rows = []
    for question in questions:
        by_rung = {answer.rung: answer for answer in question.answers}
        cells = [_markdown_answer(by_rung[rung]) if rung in by_rung else "–" for rung in rungs]
        rows.append([question.text, question.gold, *cells])
    columns = ["question", "gold", *rungs]
    return _markdown_table(columns, rows, num_headers=len(columns))


def _markdown_answer(answer: Answer) -> str:
    sign = "" if answer.equal is None else "= " if answer.equal else "≠ "
    return sign + (answer.text or "(empty)")


def _inline(text: str) -> str:
    """Text that Markdown shows as it stands: no markup, no link, no new cell, no new line."""
    one_line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", one_line)


def _fenced(code: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{code.rstrip()}\n{fence}"
