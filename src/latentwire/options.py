"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="A YAML recipe.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides such as train.lr=1e-4.", show_default=False)]
Folder = Annotated[Path, typer.Option("--out", help="Where run folders live.")]
Force = Annotated[bool, typer.Option("--force", help="Replace this run's own earlier output.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]
Baselines = Annotated[Path | None, typer.Option(help="A finished run to take text rungs of the same questions from.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
CacheLimit = Annotated[float, typer.Option(help="The most that computed features may take on the disk, in GiB.")]
WireFolder = Annotated[Path, typer.Argument(help="The folder of a trained wire.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan: recipe, parameters, memory, steps.")]

CACHE_GIB = 8.0
