"""Downloads as people and programs see them: bars on a terminal, lines elsewhere, JSON, or nothing."""

import sys
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from yapit.catalog import Model
from yapit.quantities import written
from yapit.store.downloads import Download

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_S = 3.0  # between two lines about one download
_RUNNING = ("pending", "downloading")


class View(ABC):
    """Shows downloads."""

    def shown(self) -> AbstractContextManager[object]:
        """Show them for as long as the block lasts."""
        return nullcontext()

    @abstractmethod
    def note(self, model: Model, state: str, message: str) -> None:
        """Show that nothing is fetched for a model, and why: its state is `here` or `skipped`."""

    @abstractmethod
    def change(self, download: Download) -> None:
        """Show how a download is now."""

    def end(self, message: str) -> None:
        """Show the last word, below everything else."""
        click.echo(f"yapit: {message}", err=True)


class Quiet(View):
    """Nothing; what fails is said by the command."""

    def note(self, model: Model, state: str, message: str) -> None:
        """Show nothing."""

    def change(self, download: Download) -> None:
        """Show nothing."""


class JsonLines(View):
    """An object for each change, on standard output."""

    def note(self, model: Model, state: str, message: str) -> None:
        """Print model, state and message."""
        _print({"model": model.id, "state": state, "message": message})

    def change(self, download: Download) -> None:
        """Print the download."""
        _print(download)


class Lines(View):
    """A line now and then, on standard error."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}

    def note(self, model: Model, state: str, message: str) -> None:  # noqa: ARG002 - the message says it
        """Print the message."""
        click.echo(f"{model.id}: {message}", err=True)

    def change(self, download: Download) -> None:
        """Print how far it is, if that was not said just now, or how it ended."""
        now = time.monotonic()
        if download.state in _RUNNING and (
            not download.bytes_total
            or download.state == "pending"
            or now - self._said_at.get(download.id, 0.0) < _LINE_S
        ):
            return
        self._said_at[download.id] = now
        if download.state in (*_RUNNING, "completed"):
            click.echo(f"{download.model}: {said(download)}", err=True)


class Bars(View):
    """A bar for each download, on the terminal of standard error."""

    def __init__(self) -> None:
        # Imported here: rich's bars cost more than the rest of most commands.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._shown: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[said]}", markup=False),
            console=Console(stderr=True),
            expand=True,
        )

    def shown(self) -> AbstractContextManager[object]:
        """Move them for as long as the block lasts; then they stay as they are."""
        return self._progress

    def end(self, message: str) -> None:
        """Leave the bars, and print the message below."""
        self._progress.stop()
        super().end(message)

    def note(self, model: Model, state: str, message: str) -> None:  # noqa: ARG002 - the message says it
        """Print the message above the bars."""
        self._progress.console.print(f"{model.id}: {message}", markup=False, highlight=False)

    def change(self, download: Download) -> None:
        """Move the bar."""
        if download.id not in self._shown:
            self._shown[download.id] = self._progress.add_task(download.model, total=None, said="")
        self._progress.update(
            self._shown[download.id],
            completed=download.bytes_done,
            total=download.bytes_total or (None if download.state in _RUNNING else 1),
            said=said(download),
        )


def view_of(*, quiet: bool = False, as_json: bool = False) -> View:
    """Return what shows downloads as it is wanted, and as standard error can."""
    if as_json:
        return JsonLines()
    if quiet:
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines()


def said(download: Download) -> str:
    """Return how a download is, for people: bytes, files, rate, time left."""
    if download.state == "pending":
        return "waits"
    if download.bytes_total is None:
        return download.state
    if download.state == "completed":
        return f"done, {written(download.bytes_done)}, {_files(download.files_total or 0)}"
    amount = f"{written(download.bytes_done)} of {written(download.bytes_total)}"
    parts = [amount, f"{download.files_done} of {_files(download.files_total or 0)}"]
    if download.state != "downloading":
        return ", ".join([*parts, download.state])
    if download.bytes_per_s:
        parts.append(f"{written(round(download.bytes_per_s))}/s")
    if download.eta_s is not None and download.bytes_per_s:
        parts.append(f"{_time(download.eta_s)} left")
    return ", ".join(parts)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _time(duration_s: float) -> str:
    whole = round(duration_s)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - two hours


def _print(value: object) -> None:
    click.echo(msgspec.json.encode(value).decode())
