"""`yapit speak`: speech without a server."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import rich_click as click

from yapit.cli.tables import show, show_json
from yapit.errors import InvalidInputError, did_you_mean

if TYPE_CHECKING:
    from yapit.catalog import Catalog
    from yapit.cli.parts import Parts
    from yapit.speech import Speech, Utterance

_WHOLE_CHARS = 20_000  # up to here a file gets exact sizes in its header; a book is streamed in flat memory
_ENDINGS = {"ogg": "opus", "raw": "pcm", "s16": "pcm"}


@click.command()
@click.argument("text", required=False)
@click.option("-o", "--output", help="File to write; its ending sets the format. '-' is standard output.")
@click.option("-m", "--model", default="tts-1", show_default="the default speech model", help="Model id or alias.")
@click.option("-v", "--voice", help="Voice of the model.")
@click.option("--speed", type=click.FloatRange(0.25, 4), default=1.0, show_default=True, help="1 is as spoken.")
@click.option("--language", help="Language tag, where the voice does not say it.")
@click.option("--format", "audio_format", help="mp3, opus, aac, flac, wav or pcm, whatever the file is called.")
@click.option("--voices", is_flag=True, help="List the voices instead.")
@click.option("--json", "as_json", is_flag=True, help="With --voices: print a list of objects.")
def speak(  # noqa: PLR0913, PLR0917 - a command has the options it has
    text: str | None,
    output: str | None,
    model: str,
    voice: str | None,
    speed: float,
    language: str | None,
    audio_format: str | None,
    *,
    voices: bool,
    as_json: bool,
) -> None:
    """Speak TEXT, or what comes on standard input if TEXT is '-'."""
    # Imported here and below: what listing the commands need not pay.
    from yapit.cli.parts import opened

    with opened() as parts:
        if voices:
            _list_voices(parts.catalog, model, as_json=as_json)
            return
        if text is None:
            raise click.UsageError("Give the TEXT to speak, or '-' to read it from standard input.")
        if output is None and sys.stdout.isatty():
            raise click.UsageError("Say where the audio goes: -o hello.wav, or -o - for standard output.")
        from yapit.cli.fetching import arrive
        from yapit.speech import Utterance
        from yapit.voices import VoiceMap

        chosen = parts.catalog[model]
        utterance = Utterance(
            model=chosen,
            text=_text(text),
            voice=VoiceMap.of(parts.settings.speech).resolve(chosen, voice, language),
            speed=speed,
            language=language,
            format=_format(output, audio_format),
        )
        arrive(parts, chosen)
        asyncio.run(_write(parts, utterance, output))


def _list_voices(catalog: "Catalog", model: str, *, as_json: bool) -> None:
    voices = catalog[model].voices
    if as_json:
        show_json(voices)
    else:
        show(("id", "name", "languages", "gender"), [(v.id, v.name, ",".join(v.languages), v.gender) for v in voices])


def _text(argument: str) -> str:
    text = argument
    if argument == "-":
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise InvalidInputError("there is nothing to say in the text")
    return text


def _format(output: str | None, wanted: str | None) -> str:
    from yapit.audio import FORMATS

    ending = Path(output).suffix.lstrip(".").lower() if output and output != "-" else ""
    name = (wanted or _ENDINGS.get(ending, ending) or "mp3").lower()
    if name not in FORMATS:
        raise InvalidInputError(f"the format '{name}' is unknown. {did_you_mean(name, [*FORMATS])}")
    return name


async def _write(parts: "Parts", utterance: "Utterance", output: str | None) -> None:
    from yapit.engine import Engine
    from yapit.speech import Speech

    engine = Engine(parts.settings, parts.plugins, parts.catalog)
    speech = Speech(engine, utterance)
    try:
        if output in (None, "-"):
            await _stream(speech, sys.stdout.buffer)
        else:
            # A file is replaced only by a whole one.
            target = Path(str(output))
            partial = target.with_name(f".{target.name}.part")
            try:
                with partial.open("wb") as file:
                    if len(utterance.text) <= _WHOLE_CHARS:
                        file.write((await speech.complete()).audio)
                    else:
                        await _stream(speech, file)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    finally:
        await engine.close()


async def _stream(speech: "Speech", file: BinaryIO) -> None:
    async with aclosing(speech.parts()) as parts:
        async for part in parts:
            file.write(part.audio)
            file.flush()
