"""Progress with the time left on everything that takes more than a moment: bars on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0


class Bars:
    """Progress bars with time left, on a console. Transient ones go when they end, so that an error is one line.

    Where the console is a file, which no bar can be drawn in, each task writes a line every half minute, and one when it ends
    if its bar would stay.
    """

    def __init__(self, console: Console, transient: bool = False) -> None:
        self._draws = console.is_terminal or console.is_jupyter
        self._stays = not transient
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        rest = (TimeRemainingColumn(), TextColumn("{task.fields[remark]}"))
        self.bars = Progress(
            *columns, *rest, console=console, transient=transient, speed_estimate_period=600, disable=not self._draws
        )

    def task(self, words: str) -> Callable[[float, str], None]:
        """A new bar, which pulses until it is first moved; returns the callback that moves it."""
        if not self._draws:
            return self._lines(words)
        bar = self.bars.add_task(words, total=None, remark="")
        return lambda done, remark: self.bars.update(bar, total=1.0, completed=done, remark=remark)

    def _lines(self, words: str) -> Callable[[float, str], None]:
        """What writes a task's share, elapsed seconds and remark, a line at a time."""
        begun = said = time.monotonic()

        def say(done: float, remark: str) -> None:
            nonlocal said
            now = time.monotonic()
            if (done >= 1 and self._stays) or now - said >= SECONDS_BETWEEN_LINES:
                said = now
                self.bars.console.print(f"{words}  {done:.0%}  {now - begun:.0f} s  {remark}".rstrip(), soft_wrap=True)

        return say
