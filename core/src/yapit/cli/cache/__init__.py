"""`yapit cache`: what takes the space on this machine, and what of it may go."""

import shutil
import sys
import time

import rich_click as click

from yapit.cli.cache.holdings import Holding, hub_cache, look
from yapit.cli.cache.pruning import Going, going, remove
from yapit.cli.parts import opened
from yapit.cli.tables import show, show_json
from yapit.quantities import seconds, written

_DAY_S = 86_400.0


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
@click.pass_context
def cache(context: click.Context, *, as_json: bool) -> None:
    """List what takes the space: repositories, files of URLs, parts, converted weights, results; the largest first."""
    if context.invoked_subcommand is not None:
        return
    with opened() as parts:
        found = look(parts)
    folder = hub_cache()
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    total = sum(each.bytes + each.partial_bytes for each in found)
    if as_json:
        show_json({"hub_cache": str(folder), "bytes": total, "free_bytes": free, "holdings": found})
        return
    show(("what", "name", "size", "in parts", "used", "models"), [_cells(each) for each in found])
    click.echo(f"{written(total)} in all, {written(free)} are free; the hub's cache is {folder}", err=True)


@cache.command()
@click.option("--partials", is_flag=True, help="Parts of transfers that have not come to their end.")
@click.option("--unused", is_flag=True, help="What no model of the catalog needs.")
@click.option("--older-than", metavar="AGE", help="Only what was not used for so long, such as 30d or 12h.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def prune(*, partials: bool, unused: bool, older_than: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove weights: parts, what no model needs, or, with --older-than alone, all that was not used for so long.

    What a server at the address of the settings has loaded stays.
    """
    if not (partials or unused or older_than):
        raise click.UsageError("Say what shall go: --partials, --unused, or --older-than 30d.")
    before = time.time() - _age_s(older_than) if older_than else None
    with opened() as parts:
        gone = going(parts, look(parts), partials=partials, unused=unused, before=before)
        total = sum(each.bytes for each in gone)
        if not as_json:
            for each in gone:
                click.echo(f"{written(each.bytes)}\t{each.holding.name}{' (parts)' if each.parts_only else ''}")
        if gone and not dry_run:
            if not (yes or _is_confirmed(total)):
                raise click.Abort
            total = sum(remove(each) for each in gone)
    if as_json:
        show_json({"removed": [_named(each) for each in gone], "bytes_freed": total, "dry_run": dry_run})
    else:
        click.echo(f"{written(total)} {'would be' if dry_run else 'are'} free", err=True)


def _is_confirmed(total: int) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError("Say --yes, as nobody can be asked; --dry-run only says what would go.")
    return click.confirm(f"Remove all that ({written(total)})?", err=True)


def _age_s(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise click.UsageError(f"--older-than: {error}") from error


def _named(going: Going) -> dict[str, object]:
    return {"name": going.holding.name, "parts_only": going.parts_only, "bytes": going.bytes}


def _cells(holding: Holding) -> tuple[object, ...]:
    return (
        *(holding.kind, holding.name, written(holding.bytes)),
        written(holding.partial_bytes) if holding.partial_bytes else "",
        _ago(holding.used_at),
        ", ".join(holding.models),
    )


def _ago(stamp: float) -> str:
    days = int((time.time() - stamp) // _DAY_S)
    return "today" if days < 1 else "yesterday" if days == 1 else f"{days} days ago"
