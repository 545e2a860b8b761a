"""Rows for people on a terminal, tab-separated lines for pipes, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import rich_click as click


def show(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print the rows, as a table if standard output is a terminal."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in texts:
            click.echo("\t".join(row))
        return
    # Imported here: rich's tables cost more than the rest of the command.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, header_style="bold")
    for row in texts:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def show_json(value: Any) -> None:
    """Print the value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
