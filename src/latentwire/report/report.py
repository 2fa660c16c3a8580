"""The report of one run: result files in, ``report.html`` and ``report.md`` out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from latentwire.errors import RunError
from latentwire.report.charts import ladder_chart, lines_chart, positions_chart
from latentwire.report.folder import AGAIN_TRAIN, CurvePoint, LogRecord, Prediction, RunResults, read_run
from latentwire.report.page import Answer, Chart, Page, Question, Section, Table, write_page
from latentwire.report.rows import FLOOR, RAW, TEXT, Row
from latentwire.report.tables import count, ladder_table, price_table, quality_table, varying_groups
from latentwire.report.verdict import Outcome, Thresholds, Verdict, headline_row, judge, lead_sentence

NUM_ANSWERS = 10

HEADLINES: Mapping[Outcome, str] = {
    "target": "Target reached",
    "success": "Success, short of the target",
    "inconclusive": "Inconclusive",
    "failure": "Failure",
    "reader too weak": "Reader too weak",
}


def write_report(folder: Path) -> Path:
    """Write ``report.html`` and ``report.md`` into a run folder and return the path of the HTML.

    Raises:
        RunError: a result file is missing, cut short or malformed, or the folder cannot be written.
    """
    results = read_run(folder)
    return write_page(folder, run_page(results))


def run_verdict(results: RunResults) -> Verdict:
    """The verdict on a run by its own recipe's thresholds; of several readers' the worst, with the sentences of all."""
    thresholds = thresholds_of(results)
    ladders = by_reader(results.rows) or [list(results.rows)]
    verdicts = [judge(headline_row(rows), thresholds, rows) for rows in ladders]
    worst = max(verdicts, key=lambda verdict: list(HEADLINES).index(verdict.outcome))
    leads = [lead_sentence(rows, headline_row(rows)) for rows in ladders]
    sentences = [
        sentence for verdict, lead in zip(verdicts, leads, strict=True) for sentence in (verdict.sentence, lead)
    ]
    return replace(worst, sentence=" ".join(filter(None, sentences)))


def by_reader(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each reader that has a ladder of its own, in the order of the readers."""
    readers = dict.fromkeys(row.reader for row in rows if row.rung == FLOOR)
    return [[row for row in rows if row.reader == reader] for reader in readers]


def thresholds_of(results: RunResults) -> Thresholds:
    """The thresholds in a run's recipe, Stage 1's where the recipe has none."""
    block = results.recipe.get("verdict") or {}
    if not isinstance(block, dict):
        raise RunError(f"recipe.yaml of {results.name}: 'verdict' must be a mapping, got {block!r:.40}. {AGAIN_TRAIN}")
    return Thresholds.from_dict(block, f"recipe.yaml of {results.name}: verdict")


def run_page(results: RunResults) -> Page:
    """The whole report of one run, verdict first."""
    row = headline_row(results.rows)
    verdict = run_verdict(results)
    sections = [_ladder_section(results.rows, row), _price_section(results.rows, row)]
    sections += _quality_section(results.rows, row)
    sections += _loss_section(results.log)
    sections += _curve_section(results.curve)
    sections += _answer_section(results.predictions, results.rows, row)
    sections += source_sections(results.recipe_text, results.provenance)
    return Page(
        title=f"Run {results.name}",
        kind="Stage 1: a check on a frozen reader" if row.scope == "prompt" else "Compressed context, frozen reader",
        headline=HEADLINES[verdict.outcome],
        statement=verdict.sentence,
        facts=_facts(row),
        sections=tuple(sections),
        tone=verdict.outcome.replace(" ", "-"),
    )


def price_sentence(row: Row, raw: Row | None) -> str:
    """What the rung's state costs against the token ids of the same text, said plainly, computed from the rows.

    Args:
        row: the rung the run is judged by.
        raw: the raw-embedding rung of the same scope: the positions the text itself takes.
    """
    parts: list[str] = []
    loses = row.bytes_on_wire is not None and bool(row.token_id_bytes) and row.bytes_on_wire > (row.token_id_bytes or 0)
    if row.bytes_on_wire is not None and row.token_id_bytes:
        factor = row.bytes_on_wire / row.token_id_bytes
        against = f"{factor:,.1f} times" if loses else f"{factor:.2f} of"
        text = f" (the text itself: {count(row.text_bytes)} bytes of UTF-8)" if row.text_bytes else ""
        parts.append(
            f"The state of {row.rung} takes {count(row.bytes_on_wire)} bytes per example on the wire, {against} the "
            f"{count(row.token_id_bytes)} bytes of the same text's token ids{text}."
        )
    saves = False
    plain = raw.num_positions if raw is not None else row.context_tokens
    if row.num_positions is not None and plain:
        saves = row.num_positions < plain * 0.999
        verb = f"saves {1 - row.num_positions / plain:.0%} of the" if saves else "saves none of the"
        parts.append(f"It takes {count(row.num_positions)} reader positions and {verb} {count(plain)} of the text.")
    if loses and not saves:
        stage = "Stage 1" if row.scope == "prompt" else "this rung"
        parts.append(
            f"So {stage} loses to token ids on bytes and saves no positions: it is a check that a frozen reader can "
            "read a decoded latent, not a product."
        )
    return " ".join(parts) or "The rows hold no byte counts, so no price is compared."


def source_sections(recipe: str, provenance: Mapping[str, object]) -> list[Section]:
    """The folded sections at the end: the recipe as it stands and the provenance, flattened."""
    pairs = tuple((name, value) for name, value in _flat(provenance))
    table = Table("Where and with what this ran.", ("name", "value"), pairs, num_headers=2)
    return [
        Section("recipe", "Recipe", code=recipe, folded=True),
        Section("provenance", "Provenance", tables=(table,), folded=True),
    ]


def ladder_charts(rows: Sequence[Row]) -> tuple[Chart, ...]:
    """One ladder chart per scope, and per reader, data set, split and seed where a run holds several."""
    groups = varying_groups(rows)
    panels: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        panels.setdefault((f"scope {row.scope}", *(f"{name} {getattr(row, name)}" for name in groups)), []).append(row)
    return tuple(
        Chart(
            f"F1 per rung, {', '.join(key)}. Whiskers are 95 % intervals; diamonds are trained here, circles decode a "
            "latent, squares are baselines; the dotted line is no context, the dashed line raw embeddings.",
            ladder_chart(panel, f"ladder-{index}"),
        )
        for index, (key, panel) in enumerate(panels.items(), start=1)
        if any(row.rung == FLOOR for row in panel)
    )


def _facts(row: Row) -> str:
    facts = f"{row.dataset} ({row.split}), {row.n:,} questions, {row.reader} in {row.dtype}, seed {row.seed}"
    if row.compression_requested is not None:
        facts += f", {row.compression_requested:g}× compression"
    if row.trained and row.train_examples is not None:
        facts += f", trained on {row.train_examples:,} examples"
        facts += f" in {row.train_seconds:,.0f} s" if row.train_seconds is not None else ""
        facts += f" for {row.objective}" if row.objective else ""
    return f"{facts}. Commit {row.commit}, {row.hardware}, {row.threads} threads."


def _ladder_section(rows: Sequence[Row], row: Row) -> Section:
    charts = [*ladder_charts(rows), *_position_charts(rows, row)]
    return Section("ladder", "Ladder", charts=tuple(charts), tables=(ladder_table(rows, row),))


def _position_charts(rows: Sequence[Row], row: Row) -> list[Chart]:
    """F1 against reader positions, a chart for each reader, where what is judged takes others than the text."""
    raw = _raw_row(rows, row)
    if raw is None or row.num_positions == raw.num_positions:
        return []
    charts = []
    for place, own in enumerate(by_reader([other for other in rows if other.scope == row.scope])):
        caption = (
            f"F1 against reader positions spent on the context, {own[0].reader}. Up and to the left is better; diamonds"
            " are trained here, squares are baselines. Numbers count the ladder's rungs from the top."
        )
        charts.append(Chart(caption, positions_chart(own, f"positions-{place}")))
    return charts


def _price_section(rows: Sequence[Row], row: Row) -> Section:
    return Section("prices", "Prices", (price_sentence(row, _raw_row(rows, row)),), tables=(price_table(rows, row),))


def _raw_row(rows: Sequence[Row], row: Row) -> Row | None:
    """The raw-embedding rung on the same questions."""
    groups = ("scope", "reader", "dataset", "split", "seed")
    like = [other for other in rows if all(getattr(other, name) == getattr(row, name) for name in groups)]
    return next((other for other in like if other.rung == RAW), None)


def _quality_section(rows: Sequence[Row], row: Row) -> list[Section]:
    table = quality_table(rows, row)
    return [] if table is None else [Section("decoders", "Decoder quality", tables=(table,))]


def _loss_section(log: Sequence[LogRecord]) -> list[Section]:
    """Losses, and shares where there are several; each reader's own, where training goes from one to the other."""
    charts: list[Chart] = []
    paragraphs: list[str] = []
    readers = list(dict.fromkeys(record.reader for record in log))
    for place, reader in enumerate(readers):
        own = [record for record in log if record.reader == reader]
        steps, whose = [record.step for record in own], f", {reader}" if len(readers) > 1 else ""
        losses, shares = _curves([record.losses for record in own]), _curves([record.shares for record in own])
        charts.append(Chart(f"Raw loss per objective{whose}.", lines_chart(steps, losses, f"losses-{place}", "loss")))
        if len(shares) > 1:
            svg = lines_chart(steps, shares, f"shares-{place}", "share of the gradient norm")
            charts.append(Chart(f"Measured share of the gradient norm at the trained parameters{whose}.", svg))
        elif not paragraphs:
            paragraphs.append(f"One objective, {next(iter(shares))}: its share of the gradient is 1 throughout.")
    if not log:
        return []
    return [Section("training", "Training losses and gradient shares", tuple(paragraphs), charts=tuple(charts))]


def _curve_section(curve: Sequence[CurvePoint]) -> list[Section]:
    """Against training examples, a chart for each reader: the share of the gap or, where there is none, the answers' NLL."""
    charts = []
    shared = any(point.share is not None for point in curve)
    label, what = ("share of the gap", "Share of the gap") if shared else ("NLL, nats a token", "NLL of the answers")
    for place, reader in enumerate(dict.fromkeys(point.reader for point in curve)):
        own = [point for point in curve if point.reader == reader]
        seen = sorted({point.examples for point in own})
        found = {(point.rung, point.examples): point.share if shared else point.answer_nll for point in own}
        lines: dict[str, list[float]] = {}
        for rung in dict.fromkeys(point.rung for point in own):
            values = [found.get((rung, size)) for size in seen]
            lines[rung] = [float("nan") if value is None else value for value in values]
        svg = lines_chart(seen, lines, f"curve-{place}", label, "training example")
        charts.append(Chart(f"{what} against training examples seen, {reader}.", svg))
    return [Section("curve", "Learning curves", charts=tuple(charts))] if charts else []


def _curves(records: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name, float("nan")) for record in records] for name in names}


def _answer_section(predictions: Sequence[Prediction], rows: Sequence[Row], row: Row) -> list[Section]:
    latents = [
        other.rung for other in rows if (other.scope, other.reader) == (row.scope, row.reader) and other.decodes_latent
    ]
    shown = dict.fromkeys([TEXT, *latents])
    by_id: dict[str, dict[str, Prediction]] = {}
    for prediction in predictions:
        if (prediction.scope, prediction.reader) == (row.scope, row.reader):
            by_id.setdefault(prediction.id, {})[prediction.rung] = prediction
    questions = tuple(_question(by_rung, tuple(shown)) for by_rung in list(by_id.values())[:NUM_ANSWERS])
    if not questions:
        return []
    how = (
        f"The first {len(questions)} questions of scope {row.scope}, not chosen. Equal means equal to the text's "
        "answer, string for string."
    )
    return [Section("answers", "Answers side by side", (how,), questions=questions)]


def _question(by_rung: Mapping[str, Prediction], shown: Sequence[str]) -> Question:
    first = next(iter(by_rung.values()))
    text = by_rung.get(TEXT) or by_rung.get(RAW)
    answers = []
    for rung in shown:
        prediction = text if rung == TEXT else by_rung.get(rung)
        if prediction is not None:
            equal = None if text is None or rung == TEXT else prediction.answer == text.answer
            answers.append(Answer(rung, prediction.answer, prediction.f1, equal))
    return Question(first.id, first.question, " / ".join(dict.fromkeys(first.gold)), tuple(answers))


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
