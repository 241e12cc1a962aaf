"""What the demo says while it runs: lines and a bar, on stderr."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from indexrelay.console.output import stderr


class Narrator:
    """A bar over the batches, with lines above it; without a terminal, the lines alone."""

    def __init__(self, *, steps: int) -> None:
        self._console = stderr()
        self._progress = Progress(
            TextColumn("batches"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("batches", total=steps)

    def say(self, line: str) -> None:
        """Say something."""
        self._console.print(line, soft_wrap=True)

    def step(self, line: str) -> None:
        """Say what came of one batch."""
        self.say(line)
        self._progress.advance(self._task)

    def close(self) -> None:
        """Take the bar away; safe twice."""
        self._progress.stop()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
