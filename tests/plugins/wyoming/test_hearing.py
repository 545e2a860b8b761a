"""Audio events become transcripts, of every model, whatever the samples are like."""

import io
import json
import tempfile
import wave
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.ping import Ping

from live import Server, serve, until
from loops import run
from satellite import Satellite, connected, ports
from yapit import InvalidInputError
from yapit.settings import Settings
from yapit_plugin_wyoming.hearing import AudioFormat, Tape

SENTENCES = {"en": ["hello world", "this is a test", "turn on the light"], "de": ["guten morgen", "wie geht es dir"]}
VOICES = {"en": "espeak/en-us", "de": "espeak/de"}
RATE = 24_000  # of what is spoken
SECOND = bytes(32_000)  # of 16 kHz, 16 bits


def converted(pcm: bytes, rate: int, width: int, channels: int) -> bytes:
    """Return the same sound in another format."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    times = np.arange(int(len(samples) * rate / RATE)) * RATE / rate
    sound = np.interp(times, np.arange(len(samples)), samples).repeat(channels) / 32768
    if width == 1:
        return (sound * 127 + 128).round().astype("u1").tobytes()
    whole = (sound * (2 ** (8 * width - 1) - 1)).round().astype("<i4")
    return bytes(whole.view("u1").reshape(-1, 4)[:, :width].tobytes())


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_is_spoken_is_understood(speech: int, transcription: int) -> None:
    async def main() -> None:
        async with connected(speech) as mouth, connected(transcription) as ear:
            for language, sentences in SENTENCES.items():
                for sentence in sentences:
                    said = await mouth.say(sentence, VOICES[language])
                    heard = await ear.hear(said.pcm, Transcribe(language=language), rate=RATE)
                    assert heard.types == ["transcript-start", "transcript-chunk", "transcript", "transcript-stop"]
                    assert heard.text == heard.events[1].data["text"] == sentence
                    assert heard.events[0].data["language"] == heard.events[2].data["language"] == language

    run(main())


@pytest.mark.parametrize(
    ("rate", "width", "channels"),
    [(16_000, 2, 1), (16_000, 1, 1), (22_050, 2, 2), (48_000, 3, 1), (44_100, 4, 6), (11_025, 2, 1)],
)
def test_samples_of_any_kind_are_understood(
    speech: int, transcription: int, rate: int, width: int, channels: int
) -> None:
    async def main() -> None:
        async with connected(speech) as mouth, connected(transcription) as ear:
            pcm = converted((await mouth.say("open the door", "espeak/en-us")).pcm, rate, width, channels)
            heard = await ear.hear(pcm, Transcribe(language="en"), rate=rate, width=width, channels=channels)
            assert heard.text == "open the door"

    run(main())


def test_chunks_are_enough(speech: int, transcription: int) -> None:
    async def main() -> None:
        async with connected(speech) as mouth, connected(transcription) as ear:
            pcm = (await mouth.say("good morning", "espeak/en-us")).pcm
            await ear.send(AudioChunk(rate=RATE, width=2, channels=1, audio=pcm), AudioStop())
            assert (await ear.until("transcript-stop")).text == "good morning"

    run(main())


# ── models and languages ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("asked", "text", "language"),
    [
        (Transcribe(name="sharp-ears"), "This is an echo. This is an echo. This is an echo.", "en"),
        (Transcribe(language="tlh"), "This is an echo. This is an echo. This is an echo.", "tlh"),
        (Transcribe(name="sharp-ears", language="French"), "This is an echo. This is an echo. This is an echo.", "fr"),
        (Transcribe(name="sharp-ears", language="pt_BR"), "This is an echo. " * 2 + "This is an echo.", "pt"),
        (Transcribe(name="deaf-ears", transcript_names=["Anna"], transcript_terms=["lamp"]), "", None),
    ],
)
def test_the_model_and_the_language_are_those_that_were_asked_for(
    transcription: int, asked: Transcribe, text: str, language: str | None
) -> None:
    async def main() -> None:
        async with connected(transcription) as ear:
            heard = await ear.hear(SECOND, asked)
            assert heard.text == text
            assert heard.types[0] == "transcript-start"
            assert heard.events[0].data.get("language") == language
            pieces = [event.data["text"] for event in heard.events if event.type == "transcript-chunk"]
            assert "".join(pieces) == text
            assert len(pieces) == (3 if text else 0)

    run(main())


def test_a_wish_holds_for_one_recording(transcription: int) -> None:
    async def main() -> None:
        async with connected(transcription) as ear:
            assert (await ear.hear(SECOND, Transcribe(name="sharp-ears"))).text != ""
            assert (await ear.hear(SECOND)).text == ""

    run(main())


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────
async def works(ear: Satellite) -> None:
    """Assert that nothing is left over from before."""
    await ear.send(Ping(text="next"))
    assert (await ear.until("pong")).types == ["pong"]
    assert (await ear.hear(SECOND, Transcribe(name="deaf-ears"))).types[-1] == "transcript-stop"


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        (Transcribe(name="org/eras"), "model_not_found", "'org/ears'"),
        (Transcribe(name="dumb"), "unsupported_task", "does not transcribe"),
        (Transcribe(language="klingon!"), "invalid_value", "klingon"),
        (Transcribe(name=5), "invalid_value", "name"),  # type: ignore[arg-type]  # a client's mistake
        (Transcribe(transcript_names="Anna"), "invalid_value", "array"),  # type: ignore[arg-type]  # likewise
    ],
    ids=str,
)
def test_a_bad_wish_is_refused_before_the_audio_comes(
    transcription: int, asked: Transcribe, code: str, says: str
) -> None:
    async def main() -> None:
        async with connected(transcription) as ear:
            await ear.send(asked)
            found, text = (await ear.until("transcript")).error
            assert found == code
            assert says in text
            await ear.play(SECOND)
            await works(ear)

    run(main())


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([AudioStop()], "no_audio"),
        ([AudioStart(16_000, 2, 1), AudioStop()], "no_audio"),
        ([AudioStart(16_000, 2, 1), AudioChunk(16_000, 2, 1, b""), AudioStop()], "no_audio"),
        ([AudioChunk(16_000, 2, 1, bytes(320)), AudioStop()], "audio_too_short"),
        ([AudioStart(16_000, 5, 1), AudioStop()], "invalid_value"),
        ([AudioStart(0, 2, 1), AudioChunk(0, 2, 1, SECOND), AudioStop()], "invalid_value"),
        ([AudioStart(16_000, 2, 1), AudioChunk(8_000, 2, 1, SECOND), AudioStop()], "invalid_value"),
        ([AudioChunk(1_000, 1, 1, bytes(60_001)), AudioStop()], "audio_too_long"),
        ([AudioChunk(48_000, 2, 2, SECOND)] * 100 + [AudioStop()], "body_too_large"),
    ],
)
def test_bad_audio_is_one_error_after_which_the_connection_works(
    transcription: int, events: list[Any], code: str
) -> None:
    async def main() -> None:
        async with connected(transcription) as ear:
            await ear.send(*events)
            assert (await ear.until("transcript")).error[0] == code
            await works(ear)

    run(main())


def test_a_model_that_fails_is_an_error_after_what_it_heard(transcription: int) -> None:
    async def main() -> None:
        async with connected(transcription) as ear:
            answer = await ear.hear(SECOND, Transcribe(name="failing-ears"))
            assert answer.types == ["transcript-start", "transcript-chunk", "error"]
            assert answer.error[0] == "backend_error"
            await works(ear)

    run(main())


def test_a_transcription_has_the_deadline_that_the_settings_give_it(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "models: [{id: stuck, backend: echo, tasks: [transcribe], options: {delay_s: 60}}]"
    )
    settings = json.dumps({"wyoming": {"transcription_port": 0, "serve": ["transcription"]}})
    limits = {"YAPIT_TRANSCRIPTION_MIN_TIMEOUT_S": "0.1", "YAPIT_TRANSCRIPTION_TIMEOUT_FACTOR": "0.1"}

    async def main(port: int) -> None:
        async with connected(port) as ear:
            code, text = (await ear.hear(2 * SECOND, Transcribe(name="stuck"))).error
            assert (code, "0.2 s" in text) == ("deadline_exceeded", True)

    with serve(tmp_path, YAPIT_PLUGIN_SETTINGS=settings, **limits) as server:
        run(main(*ports(server)))
        assert httpx.get(f"{server.url}/health").json()["running"] == 0


# ── the recording ─────────────────────────────────────────────────────────────────────────────────────────────────────
def tape(kind: AudioFormat) -> Tape:
    parts: Any = type("Parts", (), {"settings": Settings()})
    return Tape(parts, kind)


@pytest.mark.parametrize("size", [100, 1024 * 1024, 1024 * 1024 + 2, 5_000_000])
def test_a_recording_is_a_wav_file_in_memory_or_on_disk(size: int) -> None:
    sound = bytes(range(250)) * (size // 250 + 1)

    async def main() -> None:
        made = tape(AudioFormat(rate=11_025, width=2, channels=1))
        for start in range(0, size, 60_000):
            await made.put(sound[start : min(size, start + 60_000)])
        assert made.seconds == size / 22_050
        file = await made.file()
        file.seek(0)
        with wave.open(io.BytesIO(file.read())) as read:
            assert (read.getframerate(), read.getsampwidth(), read.getnchannels()) == (11_025, 2, 1)
            assert read.readframes(size) == sound[:size]
        made.close()
        assert file.closed

    run(main())


def test_what_would_be_too_much_is_known_before_it_is_taken() -> None:
    kind = AudioFormat(rate=16_000, width=2, channels=1)
    made = tape(kind)
    made.check(kind, 25 * 1024 * 1024)
    with pytest.raises(InvalidInputError, match="max_upload_bytes"):
        made.check(kind, 25 * 1024 * 1024 + 1)
    made.close()


def test_nothing_of_a_recording_is_left(server: Server, transcription: int) -> None:
    async def main() -> None:
        async with connected(transcription) as ear:
            for _ in range(3):
                await ear.hear(SECOND * 40, Transcribe(name="deaf-ears"))

    def opened() -> list[str]:
        """Return the files without a name that the server has open; its standard output is one, too."""
        paths = (str(path.readlink()) for path in Path(f"/proc/{server.process.pid}/fd").iterdir())
        return sorted(path for path in paths if path.startswith(tempfile.gettempdir()))

    before = opened()
    run(main())
    assert until(lambda: opened() == before)
