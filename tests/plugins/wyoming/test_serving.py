"""What is said of the models, who is let in, where, and what happens when somebody or the server leaves."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs
from wyoming.asr import Transcribe
from wyoming.ping import Ping
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeVoice

import yapit_plugin_wyoming
from conftest import Python
from live import MODELS, YAPIT, Server, serve, until
from loops import run
from pages import page, sections, tables
from satellite import connected, ended, ports, raw, section
from yapit import Context, SettingsError
from yapit.plugins import Plugins
from yapit.server.app import create_app
from yapit.settings import Settings
from yapit_plugin_wyoming import connection
from yapit_plugin_wyoming.announcing import Port, announced
from yapit_plugin_wyoming.options import WyomingSettings
from yapit_plugin_wyoming.serving import places, served

LISTENING = "\n  - {id: stuck-ears, backend: echo, tasks: [transcribe], options: {delay_s: 60, max_concurrency: 1}}\n"


@contextmanager
def home(folder: Path, environ: dict[str, str] | None = None, **fields: Any) -> Iterator[Server]:
    (folder / "models.yaml").write_text(MODELS + LISTENING)
    with serve(folder, YAPIT_PLUGIN_SETTINGS=section(**fields), **(environ or {})) as server:
        yield server


def running(server: Server, model: str) -> int:
    models = httpx.get(f"{server.url}/api/ps").json()["models"]
    return next((entry["running"] for entry in models if entry["name"] == model), 0)


# ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_voices_are_those_of_the_catalog(server: Server, speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            info = await satellite.info()
        assert info.asr == []
        (program,) = info.tts
        assert (program.name, program.installed, program.supports_synthesize_streaming) == ("yapit", True, True)
        voices = {voice.name: voice for voice in program.voices}
        assert len(voices) == len(program.voices) > 100
        assert voices["org/echo/high"].languages == []
        assert voices["a/b/c/x"].languages == ["fi-FI"]
        assert voices["espeak/en-us"].languages == ["en-US", "en"]
        assert voices["espeak/en-us"].description == "English (America) (espeak)"
        assert (voices["slow"].installed, voices["unserved"].installed) == (True, False)
        assert {"dumb", "deaf", "org/ears"} & set(voices) == set()
        assert {name.partition("/")[2] for name in voices if name.startswith("espeak/")} == catalog

    listed = httpx.get(f"{server.url}/v1/audio/voices?model=espeak").json()["voices"]
    catalog = {entry["id"] for entry in listed}
    run(main())


def test_every_voice_that_is_named_can_be_asked_for(server: Server, speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            for voice in (await satellite.info()).tts[0].voices:
                if voice.name.startswith(("echo/", "org/echo", "a/b/c", "second", "espeak/d")):
                    assert (await satellite.say("x", voice.name)).types[-1] == "audio-stop"

    run(main())


def test_the_listening_models_are_those_of_the_catalog(transcription: int) -> None:
    async def main() -> None:
        async with connected(transcription) as satellite:
            info = await satellite.info()
        assert info.tts == []
        (program,) = info.asr
        assert (program.name, program.installed, program.supports_transcript_streaming) == ("yapit", True, True)
        models = {model.name: model for model in program.models}
        assert (models["org/ears"].languages, models["org/ears"].version) == (["en", "de"], "r1")
        assert models["sharp-ears"].languages == ["tlh"]
        assert models["openai/whisper-tiny"].attribution.url == "https://huggingface.co/openai/whisper-tiny"
        assert {"dumb", "slow", "espeak"} & set(models) == set()

    run(main())


def test_home_assistant_finds_a_language_for_every_model_that_says_one(speech: int, transcription: int) -> None:
    """It looks at the first program of a kind, and there at what is installed."""

    async def main() -> None:
        async with connected(speech) as mouth, connected(transcription) as ear:
            voices = [voice for voice in (await mouth.info()).tts[0].voices if voice.installed]
            models = [model for model in (await ear.info()).asr[0].models if model.installed]
        assert {"en-US", "de", "fi-FI"} <= {tag for voice in voices for tag in voice.languages}
        assert {"en", "de", "tlh"} <= {tag for model in models for tag in model.languages}

    run(main())


def test_one_port_may_be_for_both(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def main() -> None:
        async with connected(port) as satellite:
            info = await satellite.info()
            assert (len(info.tts), len(info.asr)) == (1, 1)
            said = await satellite.say("Hello.", "echo/low")
            heard = await satellite.hear(said.pcm, Transcribe(name="echo"), rate=24_000)
            assert heard.text == "This is an echo."

    with home(tmp_path, speech_port=port, transcription_port=port) as server:
        assert ports(server) == [port]
        run(main())


def test_the_defaults_are_those_of_the_settings(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"speech_model": "org/echo", "voice": "high", "transcription_model": "echo"}

    async def main(speech: int, transcription: int) -> None:
        async with connected(speech) as mouth, connected(transcription) as ear:
            said = [await mouth.say("Hello.", name) for name in (None, "org/echo/high", "org/echo/low")]
            assert said[0].pcm == said[1].pcm != said[2].pcm
            assert (await ear.hear(bytes(32_000))).text == "This is an echo."

    with home(tmp_path, **fields) as server:
        run(main(*ports(server)))


# ── who may come in ───────────────────────────────────────────────────────────────────────────────────────────────────
def settings(**fields: Any) -> WyomingSettings:
    return Context(plugin_settings={"wyoming": fields}).settings("wyoming", WyomingSettings)


def test_only_this_machine_is_let_in_unless_the_settings_say_so() -> None:
    assert settings().host == "127.0.0.1"
    assert settings(host="::1").host == "::1"
    assert settings(host="localhost").host == "localhost"
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):  # noqa: S104 - that it is refused is the test
        with pytest.raises(SettingsError, match=r"plugin_settings\.wyoming: .*allow_open"):
            settings(host=host)
        assert settings(host=host, allow_open=True).host == host


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prot": 1}, "prot"),
        ({"speech_port": 70_000}, "speech_port"),
        ({"idle_timeout_s": 0}, "idle_timeout_s"),
        ({"serve": ["music"]}, "music"),
        ({"discovery": True}, "nobody on the network"),
    ],
)
def test_a_wrong_setting_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        settings(**fields)


def test_the_ports_are_the_usual_ones_or_those_that_were_chosen() -> None:
    def of(**fields: Any) -> list[tuple[Any, ...]]:
        return [tuple(place) for place in places(WyomingSettings(**fields))]

    assert of() == [(10_200, ("speech",), None), (10_300, ("transcription",), None)]
    assert of(serve=("transcription",)) == [(10_300, ("transcription",), None)]
    assert of(serve=()) == []
    assert of(speech_port=1, transcription_port=2) == [
        (1, ("speech",), "speech_port"),
        (2, ("transcription",), "transcription_port"),
    ]
    assert of(speech_port=10_300) == [(10_300, ("speech", "transcription"), "speech_port")]
    assert of(transcription_port=10_200) == [(10_200, ("speech", "transcription"), "transcription_port")]
    assert len(of(speech_port=0, transcription_port=0)) == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"speech_port": "taken"}, "plugin_settings.wyoming.speech_port: cannot listen on 127.0.0.1:"),
        ({"transcription_port": "taken"}, "plugin_settings.wyoming.transcription_port: cannot listen on"),
        ({"speech_model": "echoo"}, "plugin_settings.wyoming.speech_model: The model 'echoo' does not exist"),
        ({"speech_model": "deaf"}, "plugin_settings.wyoming.speech_model: The model 'deaf' does not synthesize"),
        ({"transcription_model": "slow"}, "plugin_settings.wyoming.transcription_model:"),
        ({"speech_model": "echo", "voice": "x"}, "plugin_settings.wyoming.voice: The model 'echo' has no voice 'x'"),
        ({"prots": 1}, "plugin_settings.wyoming: Object contains unknown field `prots`"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_the_end(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    (tmp_path / "models.yaml").write_text(MODELS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        chosen = {name: taken.getsockname()[1] if value == "taken" else value for name, value in fields.items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("YAPIT_")}
        done = subprocess.run(
            [YAPIT, "serve", "--port", "0"],
            cwd=tmp_path,
            env={**clean, "YAPIT_PLUGIN_SETTINGS": section(**chosen)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert "the plugin 'wyoming'" in done.stderr.splitlines()[-1]
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "serving" not in done.stderr.replace("wyoming_serving", "")


def test_a_usual_port_that_is_taken_is_reported_and_ends_nothing(tmp_path: Path) -> None:
    def usual() -> str:
        return json.dumps({"wyoming": {"serve": ["speech"]}})

    with serve(tmp_path, YAPIT_PLUGIN_SETTINGS=usual()) as first:
        with serve(tmp_path, YAPIT_PLUGIN_SETTINGS=usual()) as second:
            assert httpx.get(f"{second.url}/readyz").status_code == 200
            (refused,) = (line for line in second.lines if line["event"] == "wyoming_not_served")
            assert refused["settings"] == ["speech_port"]
            assert "127.0.0.1:10200" in refused["reason"]
        assert httpx.get(f"{first.url}/readyz").status_code == 200


def test_there_is_room_for_so_many_clients_and_then_again(tmp_path: Path) -> None:
    async def main(port: int, other: int) -> None:
        async with AsyncExitStack() as stack:
            inside = [await stack.enter_async_context(connected(port)) for _ in range(2)]
            for satellite in inside:
                await satellite.send(Ping())
                await satellite.until("pong")
            async with connected(other) as late:
                answer = await late.until("pong")
                assert answer.error[0] == "too_many_connections"
                assert await late.next() is None
            await inside[0].send(Ping())
            assert (await inside[0].until("pong")).types == ["pong"]
        for _ in range(100):
            async with connected(other) as later:
                await later.send(Ping())
                if (await later.until("pong")).types == ["pong"]:
                    return
        pytest.fail("nobody is let in any more")

    with home(tmp_path, max_connections=2) as server:
        run(main(*ports(server)))


def test_who_may_not_know_errors_is_not_kept_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_AFTER_ERROR_S", 0.05)
    monkeypatch.chdir(tmp_path)
    app = create_app(
        msgspec.convert({"plugin_settings": json.loads(section(speech_model="echo"))}, Settings), Plugins.load(["echo"])
    )

    async def main() -> None:
        with capture_logs() as lines:
            async with served(app.parts):
                port = next(line["port"] for line in lines if line["event"] == "wyoming_serving")
                async with connected(port) as one, connected(port) as other:
                    await one.say("x", "nobody")
                    assert await one.next() is None
                    # One that goes on has its time again.
                    await other.say("x", "nobody")
                    await other.send(Ping())
                    await other.until("pong")
                    assert (await other.say("x")).types[-1] == "audio-stop"
        await app.parts.engine.close()

    run(main())


# ── who leaves ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("further", [0, 3])
def test_a_client_that_leaves_frees_its_slot(server: Server, speech: int, further: int) -> None:
    """Also one that has asked for more already."""

    async def main() -> None:
        async with connected(speech) as satellite:
            await satellite.send(*[Synthesize("Hi.", SynthesizeVoice(name="stuck"))] * (1 + further))
            assert await asyncio.to_thread(until, lambda: running(server, "stuck") == 1)
        assert await asyncio.to_thread(until, lambda: running(server, "stuck") == 0)

    run(main())
    assert httpx.get(f"{server.url}/health").json()["running"] == 0


def test_one_that_leaves_while_it_is_listened_to_likewise(server: Server, transcription: int) -> None:
    async def main() -> None:
        async with connected(transcription) as satellite:
            await satellite.send(Transcribe(name="stuck-ears"))
            await satellite.play(bytes(64_000))
            assert await asyncio.to_thread(until, lambda: running(server, "stuck-ears") == 1)
        assert await asyncio.to_thread(until, lambda: running(server, "stuck-ears") == 0)

    run(main())


def test_a_client_that_leaves_in_a_text_lets_the_model_go(server: Server, speech: int) -> None:
    async def main() -> None:
        async with connected(speech) as satellite:
            await satellite.send(SynthesizeStart(voice=SynthesizeVoice(name="second")))
            await satellite.send(SynthesizeChunk("A sentence. And another one that"))
            await satellite.until("audio-chunk")
        url = f"{server.url}/api/ps/second"
        assert await asyncio.to_thread(until, lambda: httpx.delete(url).status_code in (200, 204, 404))

    run(main())


def test_a_deadline_and_a_full_queue_are_errors(tmp_path: Path) -> None:
    limits = {"YAPIT_SERVER_TIMEOUT_S": "1", "YAPIT_ENGINE_MAX_QUEUE": "0"}

    async def main(server: Server, port: int) -> None:
        stuck = Synthesize("Hi.", SynthesizeVoice(name="stuck"))
        async with connected(port) as one, connected(port) as other:
            await one.send(stuck)
            assert await asyncio.to_thread(until, lambda: running(server, "stuck") == 1)
            await other.send(stuck)
            assert (await other.until("audio-stop")).error[0] == "queue_full"
            assert (await one.until("audio-stop")).error[0] == "deadline_exceeded"
            await one.send(Ping())
            assert (await one.until("pong")).types == ["pong"]

    with home(tmp_path, limits) as server:
        run(main(server, ports(server)[0]))


def test_a_server_that_drains_finishes_what_runs_and_refuses_what_comes(tmp_path: Path) -> None:
    async def main(server: Server, port: int) -> None:
        async with connected(port) as one, connected(port) as other:
            await one.send(Synthesize("Hi.", SynthesizeVoice(name="slow")))
            begun = await one.until("audio-chunk")
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(until, lambda: "draining" in server.events)
            await other.send(Synthesize("Hi."))
            assert (await other.until("audio-stop")).error[0] == "server_draining"
            rest = await one.until("audio-stop")
            assert len(begun.pcm + rest.pcm) == 20 * 48_000
            # Who has nothing to wait for is not waited for.
            assert await one.next() is None
            assert await other.next() is None
        assert await asyncio.to_thread(server.process.wait, 10) == 0

    (tmp_path / "models.yaml").write_text(MODELS.replace("seconds: 120", "seconds: 20"))
    with serve(tmp_path, YAPIT_PLUGIN_SETTINGS=section()) as server:
        run(main(server, ports(server)[0]))
        assert "wyoming_connection_broke" not in server.events


def test_what_runs_for_too_long_is_told_that_the_server_ends(tmp_path: Path) -> None:
    async def main(server: Server, port: int) -> None:
        async with connected(port) as satellite:
            await satellite.send(Synthesize("Hi.", SynthesizeVoice(name="stuck")))
            assert await asyncio.to_thread(until, lambda: running(server, "stuck") == 1)
            server.process.send_signal(signal.SIGTERM)
            assert (await satellite.until("audio-stop")).error[0] == "server_draining"
            assert await satellite.next() is None
        assert await asyncio.to_thread(server.process.wait, 10) == 0

    with home(tmp_path, {"YAPIT_SERVER_DRAIN_S": "0.2"}) as server:
        run(main(server, ports(server)[0]))


def test_idle_connections_do_not_keep_a_server(tmp_path: Path) -> None:
    async def main(server: Server, port: int) -> None:
        async with raw(port) as (reader, writer), raw(port) as (_, silent):
            writer.write(b'{"type": "audio-chunk", "payload_length": 100}\nx')
            silent.write(b"{")
            server.process.send_signal(signal.SIGTERM)
            await ended(reader)
        assert await asyncio.to_thread(server.process.wait, 10) == 0

    with home(tmp_path) as server:
        run(main(server, ports(server)[0]))


# ── the package ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_entry_point_names_the_package() -> None:
    (entry,) = entry_points(group="yapit.plugins", name="wyoming")
    assert entry.value == "yapit_plugin_wyoming"


def test_nothing_is_imported_before_there_is_a_server(python: Python) -> None:
    program = """
import sys
from yapit.plugins import Plugins

plugins = Plugins.load(["wyoming"])
print(plugins.names, plugins.failed, sorted({"wyoming", "zeroconf", "litestar"} & sys.modules.keys()))
"""
    assert python(program).stdout.split() == ["['wyoming']", "{}", "[]"]


def test_the_ports_are_announced_while_they_are_served() -> None:
    zeroconf = pytest.importorskip("zeroconf.asyncio")

    async def main() -> None:
        name = f"yapit speech on {socket.gethostname().partition('.')[0]}._wyoming._tcp.local."
        port = Port(("speech",), "127.0.0.1", 10_200)
        async with zeroconf.AsyncZeroconf(interfaces=["127.0.0.1"]) as ear, announced([port]):
            found = await ear.async_get_service_info("_wyoming._tcp.local.", name, timeout=10_000)
            assert found is not None
            assert (found.port, found.parsed_addresses()) == (10_200, ["127.0.0.1"])

    run(main())


def test_the_page_has_every_setting() -> None:
    rows = tables(sections(page("wyoming.md"))["Settings"])[0]
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert list(documented) == [*WyomingSettings.__struct_fields__]
    fields = WyomingSettings()
    for name, default in documented.items():
        value = getattr(fields, name)
        said = json.loads(default) if default not in ("none", "10200", "10300") else None
        assert said == (list(value) if isinstance(value, tuple) else value), name


def test_the_page_has_every_code_that_http_has_not() -> None:
    documented = {row[0].strip("`") for row in tables(sections(page("wyoming.md"))["What the protocol has"])[0]}
    over_http = {row[0].strip("`") for table in tables(sections(page("http.md"))["Errors"]) for row in table}
    folder = Path(yapit_plugin_wyoming.__file__).parent
    used = {
        found
        for file in folder.glob("*.py")
        for found in re.findall(r'(?:code=|outcome = |_BROKEN = )"(\w+)"', file.read_text())
    }
    # What is only logged: that all went well, or that nobody was there any more.
    assert documented == used - over_http - {"ok", "client_left"}
