"""Languages, recordings and transcripts below the HTTP edge."""

import asyncio
import fcntl
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loops import run, turns
from sounds import flac_of_silence, wav
from yapit import InvalidInputError, Model, Segment, TranscribeRequest, Word
from yapit.tickets import Ticket
from yapit.transcription import (
    Recording,
    Transcript,
    asked_languages,
    language_code,
    language_name,
    recording,
    with_defaults,
)
from yapit.transcription import recordings as module
from yapit.transcription.languages import _CODES, _NAMES
from yapit.transcription.shapes import FORMS, token_usage, written

MODEL = Model(id="ear", backend="own", tasks=("transcribe",))
REQUEST = TranscribeRequest(sample_rate=16_000)


def transcript(*segments: Segment, duration_s: float = 2.5, **request: Any) -> Transcript:
    found = Transcript(msgspec.structs.replace(REQUEST, **request), MODEL)
    found.segments += segments
    found.duration_s = duration_s
    return found


def files(folder: Path) -> list[str]:
    return [str(path) for path in folder.iterdir()]


def content(found: Recording) -> bytes:
    return Path(str(found.path)).read_bytes()


# ── languages ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        (" en-US ", "en"),
        ("pt_BR", "pt"),
        ("zh-Hant-TW", "zh"),
        ("German", "de"),
        ("haitian creole", "ht"),
        ("Castilian", "es"),
        ("mandarin", "zh"),
        ("cantonese", "yue"),
        ("yue-HK", "yue"),
        ("jv", "jw"),
        ("nb-NO", "no"),
        ("gsw", "gsw"),
        ("auto", None),
        ("", None),
        (None, None),
    ],
)
def test_a_language_is_understood_as_clients_write_it(said: str | None, code: str | None) -> None:
    assert language_code(said) == code


@pytest.mark.parametrize("said", ["klingonese", "e", "12", "en us!", "englisch"])
def test_what_is_no_language_is_refused_with_near_ones(said: str) -> None:
    with pytest.raises(InvalidInputError, match="no language") as refused:
        language_code(said, "languages[0]")
    assert refused.value.param == "languages[0]"
    if said == "englisch":
        assert "'english'" in refused.value.message


def test_every_name_leads_to_its_code_and_back() -> None:
    assert len(_NAMES) == 100
    for code, name in _NAMES.items():
        assert language_code(name) == code
        assert language_name(code) == name
    assert set(_CODES.values()) == set(_NAMES)


def test_a_language_without_a_name_is_named_by_its_tag() -> None:
    assert [language_name(tag) for tag in ("en-GB", "gsw", "", None)] == ["english", "gsw", "unknown", "unknown"]


def test_several_languages_are_each_there_once() -> None:
    assert asked_languages(["en-US", "english", "auto", "de"]) == ("en", "de")


# ── recordings ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_short_recording_is_in_memory_and_a_long_one_in_a_file_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def main() -> None:
        async with recording(wav(1, 8_000)) as short:
            assert (len(short.pcm), short.path, short.duration_s) == (32_000, None, 1.0)
            assert files(tmp_path) == []
        async with recording(io.BytesIO(flac_of_silence(130))) as long:
            assert await long.whole() == 130.0
            assert long.pcm == b""
            assert content(long) == bytes(130 * 32_000)
            assert files(tmp_path) == [long.path]
        assert files(tmp_path) == []

    run(main())


def test_just_what_fits_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        for limit, on_disk in ((32_000, False), (31_998, True)):
            monkeypatch.setattr(module, "_IN_MEMORY_BYTES", limit)
            async with recording(wav(1)) as found:
                assert (found.path is not None) is on_disk
                request = TranscribeRequest(sample_rate=16_000, pcm=found.pcm, path=found.path)
                assert (len(request.samples()), request.duration_s) == (16_000, 1.0)

    run(main())


@pytest.mark.parametrize("raised", [RuntimeError, asyncio.CancelledError])
def test_the_file_goes_however_the_request_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def listen() -> None:
        async with recording(flac_of_silence(130)):
            assert len(files(tmp_path)) == 1
            raise raised

    async def main() -> None:
        with pytest.raises(raised):
            await listen()
        assert files(tmp_path) == []

    run(main())


class Decoder:
    """Decodes a sample at a time, the second and all later ones when it is let, and then fails if it shall."""

    def __init__(self, error: Exception | None = None, samples: int = 1_000) -> None:
        self.error = error
        self.samples = samples
        self.begun, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.made = 0

    def __call__(self, *_: Any, **__: Any) -> Iterator[bytes]:
        try:
            for _number in range(self.samples):
                self.made += 1
                yield b"ab" * 1_600
                self.begun.set()
                self.go_on.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.ended.set()


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """A decoder of recordings, of which all but the first samples are kept on disk, in `tmp_path`."""
    made = Decoder()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(module, "_IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(module, "decode_chunks", made)
    return made


def test_who_leaves_while_it_is_decoded_waits_for_the_thread_and_leaves_no_file(
    tmp_path: Path, decoder: Decoder
) -> None:
    async def listen() -> None:
        async with recording(b""):
            await asyncio.Event().wait()

    async def main() -> None:
        listening = asyncio.create_task(listen())
        await asyncio.to_thread(decoder.begun.wait)
        try:
            assert len(files(tmp_path)) == 1
            listening.cancel()
            await turns()
            assert not listening.done(), "the thread still writes to the file"
        finally:
            decoder.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await listening
        assert decoder.ended.is_set()
        assert decoder.made < 4
        assert files(tmp_path) == []

    run(main())


def test_a_long_recording_is_heard_while_it_is_still_being_decoded(decoder: Decoder) -> None:
    lengths: list[float] = []

    async def main() -> None:
        async with recording(b"", tell=lengths.append) as found:
            request = TranscribeRequest(sample_rate=16_000, path=found.path)
            assert len(request.stretch(100, 1_600)) == 1_500
            whole = asyncio.create_task(asyncio.to_thread(request.samples))
            more = asyncio.create_task(asyncio.to_thread(request.stretch, 1_600, 1_601))
            await turns()
            assert not whole.done()
            assert not more.done()
            assert lengths == []
            decoder.go_on.set()
            assert len(await more) == 1
            assert len(await whole) == 1_600_000
            assert await found.whole() == request.duration_s == 100
            assert len(request.stretch(1_599_999, 9_999_999)) == 1
            assert len(request.stretch(1_600_001, 9_999_999)) == 0
        assert lengths == [100]

    run(main())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InvalidInputError("it is too long", param="file", code="audio_too_long"), "talk.mp3: it is too long."),
        (OSError(28, "No space left on device"), "could not be decoded"),
    ],
)
def test_a_recording_that_cannot_be_decoded_to_its_end_stops_its_request(
    tmp_path: Path, decoder: Decoder, error: Exception, message: str
) -> None:
    decoder.error, decoder.samples = error, 3

    async def listen() -> None:
        async with recording(b"", subject="talk.mp3") as found:
            decoder.go_on.set()
            request = TranscribeRequest(sample_rate=16_000, path=found.path)
            assert len(await asyncio.to_thread(request.samples)) == 3 * 1_600, "nobody waits for more"
            await asyncio.Event().wait()

    async def main() -> None:
        with Ticket().bound() as ticket:
            with pytest.raises(asyncio.CancelledError):
                await listen()
            stopped = ticket.stopped()
        assert stopped is not None
        assert message in stopped.message
        assert files(tmp_path) == []

    run(main())


def test_files_of_processes_that_were_killed_go_with_the_next_recording(tmp_path: Path, decoder: Decoder) -> None:
    decoder.go_on.set()
    decoder.samples = 2
    old, held, new = (tmp_path / f"yapit-{name}.pcm" for name in ("old", "held", "new"))
    for path in (old, held, new):
        path.touch()
    for path in (old, held):
        os.utime(path, (0, 0))

    async def main() -> None:
        async with recording(b""):
            pass

    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run(main())
    assert sorted(files(tmp_path)) == sorted(map(str, (held, new)))


@pytest.mark.parametrize(
    ("sound", "code"), [(wav(0.099), "audio_too_short"), (wav(2.1), "audio_too_long"), (b"", "invalid_value")]
)
def test_what_is_no_recording_names_the_field(sound: bytes, code: str) -> None:
    async def main() -> None:
        with pytest.raises(InvalidInputError) as refused:
            async with recording(sound, max_audio_s=2, param="input_audio"):
                pass
        assert (refused.value.param, refused.value.code) == ("input_audio", code)
        async with recording(wav(0.1)) as found:
            assert found.duration_s == pytest.approx(0.1)

    run(main())


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_defaults_fill_what_is_not_said_and_the_rest_are_options() -> None:
    defaults = {"language": "fr", "temperature": 0.4, "beams": 5, "voice": "of another task"}
    tuned = msgspec.structs.replace(MODEL, defaults=defaults)
    found = with_defaults(tuned, msgspec.structs.replace(REQUEST, language="de", options={"patience": 2}))
    assert (found.language, found.temperature, found.options) == ("de", 0.4, {"beams": 5, "patience": 2})
    assert with_defaults(MODEL, REQUEST) is REQUEST


# ── transcripts ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_form_can_be_written_of_nothing() -> None:
    for form in FORMS:
        assert written(transcript(), form) or form == "srt"


def test_what_the_model_leaves_out_is_computed() -> None:
    tokens = [{"text": "a", "logprob": -1.0}, {"text": "b", "logprob": -2.0}]
    segment = msgspec.convert({"text": "ab" * 50, "start_s": 31, "end_s": 32, "token_logprobs": tokens}, Segment)
    (found,) = msgspec.json.decode(written(transcript(segment, temperature=0.5), "verbose_json"))["segments"]
    assert (found["avg_logprob"], found["temperature"], found["seek"]) == (-1.5, 0.5, 3000)
    assert found["compression_ratio"] > 5
    assert (found["no_speech_prob"], found["tokens"]) == (0.0, [])


def test_tokens_are_counted_or_else_words() -> None:
    told = Segment(text=" one two", start_s=0, end_s=1, tokens=(1, 2, 3))
    silent = Segment(text=" three four", start_s=1, end_s=2)
    usage = token_usage(transcript(told, silent, duration_s=2.01))
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (21, 5, 26)
    assert usage.input_token_details.audio_tokens == 21


def test_words_are_stripped_and_rounded() -> None:
    word = Word(text=" Köln, ", start_s=0.12345, end_s=0.9999, offset=0)
    segment = Segment(text=" Köln, ", start_s=0, end_s=1, words=(word,))
    body = msgspec.json.decode(written(transcript(segment), "verbose_json", ["word"]))
    assert body["words"] == [{"word": "Köln,", "start": 0.123, "end": 1.0}]
    assert "segments" not in body
