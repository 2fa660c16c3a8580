"""The model card of a wire: what it is, how it is used, and what the ladder measured, written from the rows alone."""

import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from latentwire.atomic import atomic_write
from latentwire.report.rows import Row
from latentwire.report.tables import count, interval, number
from latentwire.wire_folder import CARD, CONFIG, ROWS

HEAD = """---
library_name: latentwire
license: apache-2.0
tags: [prompt-compression, soft-prompt, frozen-llm]
---

# {name}

A LatentWire wire: text is encoded once into a sequence {compressions} times
shorter, and frozen language models answer from it, each through an adapter of its own.

- encoder: `{encoder}` in {dtype}, layers {layers}
- readers: {readers}
- latent space: `{space}`

```python
import latentwire as lw

wire = lw.Wire.from_pretrained("{name}")
reader = wire.open_reader("{reader}")
latents = wire.encode(["The Velden lighthouse was built in 1874 by the engineer Ruth Almeida."])
print(reader.answer(wire.prefix(latents, reader), "Who built the Velden lighthouse?").text)
```

A latent does not hide its text: it can be recovered in part. It is larger in bytes than the text; it saves reader
positions, and is read by every reader above.
"""


def write_card(wire: Path, rows: Sequence[Row], name: str) -> None:
    """Write rows and model card of a wire into its folder."""
    config = json.loads((wire / CONFIG).read_text(encoding="utf-8"))
    lines = "".join(json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows)
    for file, text in ((ROWS, lines), (CARD, _card(name, config, rows))):
        atomic_write(wire / file, partial(Path.write_text, data=text, encoding="utf-8"))


def _card(name: str, config: dict[str, Any], rows: Sequence[Row]) -> str:
    method, readers = config["method"], [reader["name"] for reader in config["readers"].values()]
    head = HEAD.format(
        name=name,
        compressions=", ".join(map(str, method["compressions"])),
        encoder=method["encoder"],
        dtype=method["encoder_dtype"],
        layers=method["layers"],
        readers=", ".join(f"`{reader}`" for reader in readers),
        space=config["space"],
        reader=readers[0],
    )
    tables = [_table(asked, list(same)) for asked, same in itertools.groupby(rows, _asked)]
    return "\n".join([head, "## What the ladder measured\n", "\n\n".join(tables), ""])


def _asked(row: Row) -> str:
    return f"{row.dataset} ({row.split}), {row.n:,} questions, seed {row.seed}, commit {row.commit}."


def _table(caption: str, rows: Sequence[Row]) -> str:
    lines = [
        f"{caption}\n",
        "| reader | rung | F1 [95 %] | share of gap [95 %] | answer NLL | positions |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.reader} | {row.rung} | {interval(row.f1, row.f1_low, row.f1_high)} |"
        f" {interval(row.share_of_gap, row.share_of_gap_low, row.share_of_gap_high)} | {number(row.answer_nll)} |"
        f" {count(row.num_positions)} |"
        for row in rows
    ]
    return "\n".join(lines)
