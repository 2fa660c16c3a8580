"""Progress bars with the time left on everything that takes more than a moment."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """Progress bars with time left, on a console. Transient ones go when they end, so that an error is one line."""

    def __init__(self, console: Console, transient: bool = False) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        rest = (TimeRemainingColumn(), TextColumn("{task.fields[remark]}"))
        self.bars = Progress(*columns, *rest, console=console, transient=transient, speed_estimate_period=600)

    def task(self, words: str) -> Callable[[float, str], None]:
        """A new bar, which pulses until it is first moved; returns the callback that moves it."""
        bar = self.bars.add_task(words, total=None, remark="")
        return lambda done, remark: self.bars.update(bar, total=1.0, completed=done, remark=remark)
