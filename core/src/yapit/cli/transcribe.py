"""`yapit transcribe`: transcripts without a server."""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, BinaryIO, cast

import rich_click as click
from msgspec import Struct

from yapit.errors import InvalidInputError, did_you_mean

if TYPE_CHECKING:
    from rich.progress import Progress

    from yapit.catalog import Model
    from yapit.cli.parts import Parts
    from yapit.engine import Engine
    from yapit.schemas import TranscribeRequest
    from yapit.transcription.shapes import Form

_ENDINGS: dict[str, "Form"] = {"txt": "text", "srt": "srt", "vtt": "vtt", "json": "verbose_json"}
_IN_MEMORY_BYTES = 1024 * 1024
_STANDARD = "-"


class _Job(Struct, frozen=True, kw_only=True):
    """A recording, where its transcript goes, and in which form."""

    name: str
    source: Path | BinaryIO
    output: Path | None  # standard output
    form: "Form"
    words: bool


class _Asked(Struct, frozen=True, kw_only=True):
    """What is the same for all recordings."""

    model: "Model"
    request: "TranscribeRequest"


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    help="File to write, one for each FILE, or a folder for all; an ending sets the format. '-' is standard output.",
)
@click.option("-m", "--model", default="whisper-1", show_default="the default listening model", help="Id or alias.")
@click.option("--format", "form", help="text, srt, vtt, json or verbose_json, whatever the file is called.")
@click.option("--language", help="Language that is spoken: a code or a name; the model finds it out if it can.")
@click.option("--prompt", help="What was said before, or text in the style that is wanted.")
@click.option("--words", is_flag=True, help="With verbose_json: tell when each word is heard.")
@click.option("--translate", is_flag=True, help="Write down in English.")
def transcribe(  # noqa: PLR0913 - a command has the options it has
    files: tuple[str, ...],
    outputs: tuple[str, ...],
    model: str,
    form: str | None,
    language: str | None,
    prompt: str | None,
    *,
    words: bool,
    translate: bool,
) -> None:
    """Write down what is said in each FILE, or in what comes on standard input if it is '-'."""
    # Imported here and below: what listing the commands need not pay.
    from yapit.cli.fetching import arrive
    from yapit.cli.parts import opened
    from yapit.schemas import TranscribeRequest
    from yapit.transcription import SAMPLE_RATE, language_code

    planned = _plan(files, outputs, form, words=words)
    request = TranscribeRequest(
        sample_rate=SAMPLE_RATE,
        language=language_code(language),
        prompt=prompt or None,
        translate=translate,
        word_times=words,
    )
    with opened() as parts, ExitStack() as stack:
        asked = _Asked(model=parts.catalog[model], request=request)
        arrive(parts, asked.model)
        # Before there is an event loop: reading standard input can be interrupted only so.
        jobs = [_opened(stack, name, output, made, words=words) for name, output, made in planned]
        asyncio.run(_run(parts, asked, jobs))


def _plan(
    files: tuple[str, ...], outputs: tuple[str, ...], form: str | None, *, words: bool
) -> list[tuple[str, Path | None, "Form"]]:
    """Return each file with its output and its form."""
    if files.count(_STANDARD) > 1:
        raise click.UsageError("Standard input can be read only once.")
    planned = [(name, output, _form(output, form, words=words)) for name, output in _targets(files, outputs, form)]
    targets = [output.resolve() for _, output, _ in planned if output is not None]
    if len(set(targets)) < len(targets):
        raise click.UsageError("Two transcripts would go to the same file.")
    for target in targets:
        if not target.parent.is_dir():
            raise InvalidInputError(f"there is no folder '{target.parent}'")
    if len(files) > 1 and any(made in {"srt", "vtt"} for _, output, made in planned if output is None):
        raise click.UsageError("Subtitles of several files need files: -o FOLDER, or -o for each FILE.")
    return planned


def _targets(files: tuple[str, ...], outputs: tuple[str, ...], form: str | None) -> Iterator[tuple[str, Path | None]]:
    folder = Path(outputs[0]) if len(outputs) == 1 and outputs[0] != _STANDARD else None
    if folder is not None and (folder.is_dir() or outputs[0].endswith(os.sep)):
        ending = next((known for known, made in _ENDINGS.items() if made == form), "json" if form else "txt")
        for name in files:
            yield name, folder / f"{'transcript' if name == _STANDARD else Path(name).stem}.{ending}"
    elif outputs and set(outputs) != {_STANDARD}:
        if len(outputs) != len(files):
            raise click.UsageError(f"There are {len(files)} files and {len(outputs)} outputs; a folder takes them all.")
        for name, output in zip(files, outputs, strict=True):
            yield name, None if output == _STANDARD else Path(output)
    else:
        yield from ((name, None) for name in files)


def _form(output: Path | None, wanted: str | None, *, words: bool) -> "Form":
    from yapit.transcription.shapes import FORMS

    ending = output.suffix.lstrip(".").lower() if output is not None else ""
    if wanted is None and ending not in _ENDINGS and ending:
        raise InvalidInputError(f"the ending '.{ending}' says no format. {did_you_mean(ending, [*_ENDINGS])}")
    name = wanted or _ENDINGS.get(ending) or ("verbose_json" if words else "text")
    if name not in FORMS:
        raise InvalidInputError(f"the format '{name}' is unknown. {did_you_mean(name, [*FORMS])}")
    form = next(known for known in FORMS if known == name)
    if words and form != "verbose_json":
        raise click.UsageError("Words have times in verbose_json only: --format verbose_json, or -o FILE.json.")
    return form


def _opened(stack: ExitStack, name: str, output: Path | None, form: "Form", *, words: bool) -> _Job:
    if name != _STANDARD:
        return _Job(name=name, source=Path(name), output=output, form=form, words=words)
    # Some containers are read from their end.
    spool = cast("BinaryIO", SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))  # noqa: SIM115 - the stack closes it
    stack.callback(spool.close)
    shutil.copyfileobj(sys.stdin.buffer, spool)
    return _Job(name="standard input", source=spool, output=output, form=form, words=words)


async def _run(parts: "Parts", asked: _Asked, jobs: list[_Job]) -> None:
    from yapit.engine import Engine

    engine = Engine(parts.settings, parts.plugins, parts.catalog)
    try:
        with _progress() as progress:
            for job in jobs:
                _write(job, await _transcribed(engine, asked, job, progress))
    finally:
        await engine.close()


async def _transcribed(engine: "Engine", asked: _Asked, job: _Job, progress: "Progress") -> bytes:
    """Return the transcript of one recording, and show how far it is."""
    from yapit.tickets import Ticket
    from yapit.transcription import Transcription, recording
    from yapit.transcription.shapes import written

    def tell(duration_s: float) -> None:
        progress.update(shown, total=duration_s, length=f"{duration_s:.0f}")

    shown = progress.add_task(job.name, total=None, length="?")
    with Ticket().bound() as ticket:
        try:
            async with recording(job.source, subject=job.name, tell=tell) as heard:
                transcription = Transcription(engine, asked.model, asked.request, heard)
                async with aclosing(transcription.segments()) as segments:
                    async for segment in segments:
                        progress.update(shown, completed=segment.end_s)
        except asyncio.CancelledError:
            if (error := ticket.stopped()) is None:
                raise
            raise error from None
    found = transcription.transcript
    progress.update(shown, completed=found.duration_s)
    return written(found, job.form, ("word", "segment") if job.words else ())


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Show on standard error, if that is a terminal, how many seconds of each recording have been heard."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.fields[length]} s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


def _write(job: _Job, transcript: bytes) -> None:
    """Write the transcript; a file is replaced only by a whole one."""
    if job.output is None:
        sys.stdout.buffer.write(transcript if transcript.endswith(b"\n") else transcript + b"\n")
        sys.stdout.buffer.flush()
        return
    partial = job.output.with_name(f".{job.output.name}.part")
    try:
        partial.write_bytes(transcript)
        partial.replace(job.output)
    finally:
        partial.unlink(missing_ok=True)
