"""Rows to tables of finished strings: the ladder, the prices, the decoders' quality. One place decides on digits."""

from collections.abc import Callable, Sequence

from latentwire.report.page import Table
from latentwire.report.rows import Row

ABSENT = "–"
QUALITY_FIELDS = ("rms_ratio", "cosine", "variance_unexplained", "token_recovery")
GROUP_FIELDS = ("reader", "dataset", "split", "seed")

Cell = Callable[[Row], str]


def ladder_table(rows: Sequence[Row], headline: Row) -> Table:
    """Every rung with its scores, in the order of the ladder; a rung's note stands under the table."""
    columns: dict[str, Cell] = {
        "F1 [95 % interval]": lambda row: interval(row.f1, row.f1_low, row.f1_high),
        "exact match": lambda row: number(row.em),
        "ratio [95 % interval]": lambda row: interval(row.ratio, row.ratio_low, row.ratio_high),
        "share of plain gap": lambda row: number(row.share_of_plain_gap),
        **_gap_columns(rows),
        "answer NLL": lambda row: number(row.answer_nll),
        "agreement": lambda row: number(row.agreement),
        "exposure gap": lambda row: number(row.exposure_gap),
    }
    caption = (
        "The ladder. Scores are fractions of 1; ratio is F1 over the raw embeddings' F1; agreement counts answers "
        "equal to the text's, string for string."
    )
    if _gap_columns(rows):
        caption += (
            " Share of gap is how far F1 comes from no context to full text, each tuned to the task; tuned rungs learnt as"
            " many task tokens from as many examples. The trained rung's lead is over the rung of that line, question by"
            " question."
        )
    return _table(caption, columns, rows, rows, headline)


def _gap_columns(rows: Sequence[Row]) -> dict[str, Cell]:
    if all(row.share_of_gap is None for row in rows):
        return {}
    return {
        "share of gap [95 % interval]": lambda row: interval(
            row.share_of_gap, row.share_of_gap_low, row.share_of_gap_high
        ),
        "trained rung's lead in F1": lambda row: interval(row.f1_lead, row.f1_lead_low, row.f1_lead_high),
        "its lead in NLL": lambda row: interval(row.nll_lead, row.nll_lead_low, row.nll_lead_high),
    }


def price_table(rows: Sequence[Row], headline: Row) -> Table:
    """What every rung costs in bytes, reader positions, parameters, time and memory."""
    columns: dict[str, Cell] = {
        "bytes on wire": lambda row: count(row.bytes_on_wire),
        "compression, dtype": _compression,
        "text bytes": lambda row: count(row.text_bytes),
        "token-id bytes": lambda row: count(row.token_id_bytes),
        "positions": lambda row: count(row.num_positions),
        "KV cache KB": lambda row: ABSENT if row.kv_cache_bytes is None else count(row.kv_cache_bytes / 1e3),
        "decoder parameters": lambda row: count(row.decoder_parameters),
        "encode ms": lambda row: milliseconds(row.encode_seconds),
        **_reads_column(rows),
        "prefill ms": lambda row: milliseconds(row.prefill_seconds),
        "generate ms": lambda row: milliseconds(row.generate_seconds),
        "peak memory MB": lambda row: ABSENT if row.peak_memory_bytes is None else count(row.peak_memory_bytes / 1e6),
    }
    caption = "The prices. Bytes and positions are means per example, times are medians per example after warm-up."
    return _table(caption, columns, rows, rows, headline)


def _reads_column(rows: Sequence[Row]) -> dict[str, Cell]:
    """Only where a sequence is shorter can encoding it pay."""
    if all(row.share_of_gap is None for row in rows):
        return {}
    return {"reads until paid": lambda row: ABSENT if row.reads_to_pay is None else f"{row.reads_to_pay:.1f}"}


def quality_table(rows: Sequence[Row], headline: Row) -> Table | None:
    """How well each decoder rebuilds the embeddings, or ``None`` where no rung decodes per token."""
    decoders = [row for row in rows if any(getattr(row, name) is not None for name in _quality_names())]
    if not decoders:
        return None
    columns: dict[str, Cell] = {}
    for name in QUALITY_FIELDS:
        label = "RMS ratio" if name == "rms_ratio" else name.replace("_", " ")
        columns[label] = _field_cell(name)
        columns[f"{label}, held out"] = _field_cell(f"{name}_heldout")
    columns["decoder / table parameters"] = _parameter_share
    caption = (
        "The decoders. An RMS ratio of 1 means that norms come out right; held out means vocabulary rows kept out of "
        "training."
    )
    return _table(caption, columns, decoders, rows, headline)


def varying_groups(rows: Sequence[Row]) -> tuple[str, ...]:
    """The fields among reader, data set, split and seed that differ between rows, so that a table must show them."""
    return tuple(name for name in GROUP_FIELDS if len({getattr(row, name) for row in rows}) > 1)


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """``0.532 [0.495, 0.570]``, without brackets where there is no interval."""
    if value is None:
        return ABSENT
    return number(value) if low is None or high is None else f"{number(value)} [{number(low)}, {number(high)}]"


def number(value: float | None) -> str:
    """Three decimals, and never a minus before a zero."""
    if value is None:
        return ABSENT
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return ABSENT if value is None else f"{round(value):,}"


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds, with one decimal below ten."""
    if seconds is None:
        return ABSENT
    return f"{seconds * 1e3:.1f}" if seconds < 0.01 else f"{seconds * 1e3:,.0f}"


def _table(
    caption: str, columns: dict[str, Cell], rows: Sequence[Row], all_rows: Sequence[Row], headline: Row
) -> Table:
    groups = varying_groups(all_rows)
    headers = ("rung", "scope", *(name.replace("dataset", "data set") for name in groups))
    notes = tuple(dict.fromkeys(row.note for row in rows if row.note))
    lines = tuple(
        (
            row.rung + (" (trained)" if row.trained else "") + (f" [{notes.index(row.note) + 1}]" if row.note else ""),
            row.scope,
            *(str(getattr(row, name)) for name in groups),
            *(cell(row) for cell in columns.values()),
        )
        for row in rows
    )
    place = next((index for index, row in enumerate(rows) if row is headline), None)
    breaks = tuple(index for index in range(1, len(rows)) if rows[index].scope != rows[index - 1].scope)
    return Table(caption, (*headers, *columns), lines, len(headers), place, breaks, notes)


def _quality_names() -> tuple[str, ...]:
    return (*QUALITY_FIELDS, *(f"{name}_heldout" for name in QUALITY_FIELDS))


def _field_cell(name: str) -> Cell:
    return lambda row: number(getattr(row, name))


def _compression(row: Row) -> str:
    achieved = row.compression_achieved or row.compression_requested
    parts = [f"{achieved:.3g}×" if achieved else "", row.wire_dtype or ""]
    return " ".join(part for part in parts if part) or ABSENT


def _parameter_share(row: Row) -> str:
    if row.decoder_parameters is None or not row.table_parameters:
        return ABSENT
    return f"{row.decoder_parameters / row.table_parameters:.3f}"
