"""Text becomes audio events, of every voice of every model, whole or while it comes."""

from typing import Any

import httpx
import pytest
from wyoming.ping import Ping
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice

from live import Server
from loops import run
from satellite import Answer, Satellite, connected
from yapit_plugin_wyoming.choosing import VoiceWish
from yapit_plugin_wyoming.speaking import Manner, Streaming

MARY = "Mary had a little lamb. Its fleece was white as snow."
BYTES_PER_CHARACTER = round(0.06 * 24_000) * 2  # of what echo hums


def over_http(server: Server, model: str, voice: str | None, text: str) -> bytes:
    body = {"model": model, "voice": voice, "input": text, "response_format": "pcm"}
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body)
    assert answer.status_code == 200
    return answer.content


async def stream(satellite: Satellite, *chunks: str, voice: SynthesizeVoice | None = None) -> Answer:
    await satellite.send(SynthesizeStart(voice=voice), *map(SynthesizeChunk, chunks), SynthesizeStop())
    return await satellite.until("synthesize-stopped")


# ── voices ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("wish", "model", "voice"),
    [
        ({}, "echo", "low"),
        ({"name": "high"}, "echo", "high"),
        ({"name": "HIGH"}, "echo", "high"),
        ({"name": "nova"}, "echo", "high"),
        ({"name": "echo/high"}, "echo", "high"),
        ({"name": "org/echo"}, "org/echo", "low"),
        ({"name": "org/echo/high"}, "org/echo", "high"),
        ({"name": "slashed/high"}, "org/echo", "high"),
        ({"name": "a/b/c/y"}, "a/b/c", "y"),
    ],
    ids=str,
)
def test_a_voice_is_that_of_http(server: Server, speech: int, wish: dict[str, str], model: str, voice: str) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            said = await satellite.say(MARY, **wish)
        assert said.types == ["audio-start", "audio-chunk", "audio-stop"]
        assert said.events[0].data == {"rate": 24_000, "width": 2, "channels": 1, "timestamp": None}
        assert max(len(event.payload or b"") for event in said.events) <= 8192
        assert said.pcm == over_http(server, model, voice, MARY)
        assert len(said.pcm) > 100_000

    run(main())


def test_a_language_is_spoken_by_who_has_it(server: Server, speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            assert (await satellite.say("Hei.", language="fi_FI")).types[-1] == "audio-stop"
            assert (await satellite.say("Saluton.", language="eo")).types[-1] == "audio-stop"
            assert (await satellite.say("Hum.", language="tlh")).pcm == over_http(server, "echo", "low", "Hum.")

    run(main())
    used = {entry["name"] for entry in httpx.get(f"{server.url}/api/ps").json()["models"]}
    assert {"espeak", "echo"} <= used


def test_a_speaker_is_a_variant_of_the_voice(speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            for wish in ({"name": "espeak/en-us", "speaker": "f3"}, {"name": "espeak/en-us+f3"}):
                assert (await satellite.say("Hello.", **wish)).types[-1] == "audio-stop"
            code, text = (await satellite.say("Hello.", "espeak/en-us", speaker="nobody")).error
            assert (code, "nobody" in text) == ("invalid_value", True)
            code, text = (await satellite.say("Hello.", "echo/low", speaker="f3")).error
            assert "no speakers" in text

    run(main())


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("event", "code", "says"),
    [
        (Synthesize("Hi.", SynthesizeVoice(name="echo/hihg")), "invalid_value", "Did you mean 'high'?"),
        (Synthesize("Hi.", SynthesizeVoice(name="nobody/knows")), "invalid_value", "no voice 'nobody/knows'"),
        (Synthesize(" \n"), "empty_input", "nothing to say"),
        (Synthesize("x" * 4097), "string_above_max_length", "4096"),
        (Synthesize("<s/>", text_format="ssml"), "invalid_value", "ssml"),
        (Synthesize(5), "invalid_value", "text"),  # type: ignore[arg-type]  # a client's mistake
        (Synthesize("Hi.", SynthesizeVoice(name=["x"])), "invalid_value", "name"),  # type: ignore[arg-type]
        (Synthesize("Hi.", SynthesizeVoice(name="failing")), "backend_error", "told to fail"),
        (Synthesize("Hi.", SynthesizeVoice(name="unserved")), "load_failed", "yapit-plugin-nobody"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_an_error_after_which_the_connection_works(
    speech: int, event: Synthesize, code: str, says: str
) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            await satellite.send(event)
            found, text = (await satellite.until("audio-stop")).error
            assert found == code
            assert says in text
            assert (await satellite.say("Hi.")).types == ["audio-start", "audio-chunk", "audio-stop"]

    run(main())


def test_a_port_serves_what_it_is_for(speech: int, transcription: int) -> None:
    async def main() -> None:
        async with connected(transcription) as satellite:
            assert (await satellite.say("Hi.")).error == ("unsupported_task", "No speech is served on this port.")
        async with connected(speech) as satellite:
            answer = await satellite.hear(bytes(32_000))
            assert answer.error == ("unsupported_task", "No transcription is served on this port.")

    run(main())


# ── a text that comes bit by bit ──────────────────────────────────────────────────────────────────────────────────────
def test_a_sentence_is_heard_before_the_text_has_ended(speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            await satellite.send(SynthesizeStart(voice=SynthesizeVoice(name="echo/high")))
            await satellite.send(*map(SynthesizeChunk, ["Mary had a ", "little lamb.", " Its fleece "]))
            heard = await satellite.until("audio-chunk")
            await satellite.send(SynthesizeChunk("was white as snow."), SynthesizeStop())
            rest = await satellite.until("synthesize-stopped")
            answer = Answer([*heard.events, *rest.events])
            assert answer.types == ["audio-start", "audio-chunk", "audio-stop", "synthesize-stopped"]
            assert len(answer.pcm) == len(MARY) * BYTES_PER_CHARACTER
            apart = [await satellite.say(text, "echo/high") for text in (MARY[:24], MARY[24:])]
            assert answer.pcm == apart[0].pcm + apart[1].pcm

    run(main())


def test_the_whole_text_that_also_comes_is_not_said_again(speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            await satellite.send(SynthesizeStart(), SynthesizeChunk("One two."), Synthesize("One two."))
            await satellite.send(SynthesizeStop(), Ping(text="still there"))
            answer = await satellite.until("synthesize-stopped")
            assert answer.types.count("audio-start") == 1
            assert len(answer.pcm) == len("One two.") * BYTES_PER_CHARACTER
            assert len((await satellite.say("Three.")).pcm) == len("Three.") * BYTES_PER_CHARACTER

    run(main())


@pytest.mark.parametrize(
    ("voice", "chunks", "code"),
    [
        ("echo/nobody", ["Hello."], "invalid_value"),
        (None, [" ", "\n"], "empty_input"),
        (None, [], "empty_input"),
        (None, ["word " * 800, "word " * 100], "string_above_max_length"),
        ("failing", ["Hello."], "backend_error"),
    ],
)
def test_a_stream_that_fails_has_one_error_and_an_end(
    speech: int, voice: str | None, chunks: list[str], code: str
) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            answer = await stream(satellite, *chunks, voice=SynthesizeVoice(name=voice) if voice else None)
            assert answer.error[0] == code
            assert (await satellite.next() or answer.events[0]).type == "synthesize-stopped"
            assert (await stream(satellite, "Hello.")).types[-1] == "synthesize-stopped"

    run(main())


def test_requests_may_be_sent_without_waiting_and_are_answered_in_order(speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            await satellite.send(*(Synthesize("x" * length) for length in (30, 10, 20)))
            lengths = [len((await satellite.until("audio-stop")).pcm) for _ in range(3)]
            assert [length // BYTES_PER_CHARACTER for length in lengths] == [30, 10, 20]

    run(main())


def test_too_many_that_wait_are_refused(speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            stuck = Synthesize("Hi.", SynthesizeVoice(name="stuck"))
            await satellite.send(*[stuck] * 12, Ping(text="here"))
            refused = 0
            while (answer := await satellite.until("pong")).types != ["pong"]:
                assert answer.error == ("rate_limit_exceeded", "Too many requests wait on this connection.")
                refused += 1
            # One runs, if it had the time to begin.
            assert refused in (3, 4)

    run(main())


# ── where a sentence ends ─────────────────────────────────────────────────────────────────────────────────────────────
def ready(*chunks: str) -> list[str]:
    """Return what would be spoken after each chunk, if speaking took no time."""
    from yapit.settings import Settings  # its default limits

    parts: Any = type("Parts", (), {"settings": Settings()})
    choices: Any = None
    text = Streaming(parts, choices, Manner(voice=VoiceWish()), 60)
    spoken = []
    for chunk in chunks:
        text.feed(chunk)
        spoken.append(text._ready())
        text._text = text._text[len(spoken[-1]) :]
    text.end()
    return [*spoken, text._ready()]


@pytest.mark.parametrize(
    "chunks",
    [
        ["Hello", " there", ".", " How", " are", " you", "?"],
        ["It costs approx", ".", " 5", " euros", ".", " Good", ", isn't", " it?"],
        ["今日はいい天気ですね。", "明日はどうでしょうか。", "わかりません。"],
        ["word " * 200],
        ["", " ", "\n\n", "x"],
    ],
)
def test_nothing_of_a_streamed_text_is_lost(chunks: list[str]) -> None:
    assert "".join(ready(*chunks)) == "".join(chunks)


def test_a_sentence_is_ready_when_the_text_goes_on() -> None:
    assert ready("Hello there.", " How", " are") == ["", "", "Hello there. ", "How are"]
    assert ready("It costs approx.", " 5 ", "euros.") == ["", "", "", "It costs approx. 5 euros."]
    assert ready("今日はいい天気ですね。", "明日はどうでしょうか、また") == [
        "",
        "今日はいい天気ですね。",
        "明日はどうでしょうか、また",
    ]
