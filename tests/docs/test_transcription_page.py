"""The page on transcription says what the code does."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from litestar.testing import TestClient

from pages import CODE, code, curl_lines, page, sections, tables
from sounds import wav
from yapit.audio.decoding import _MOST_CHANNELS
from yapit.schemas import VoiceActivity
from yapit.server.app import Application, create_app
from yapit.server.listening import routes
from yapit.server.listening.bodies import TranscriptionBody, TranslationBody
from yapit.settings import Settings, TranscriptionSettings
from yapit.transcription import recordings, shapes


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Application]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        app = create_app(Settings(transcription=TranscriptionSettings(default_model="echo")))
    with TestClient(app) as found:
        yield found


def rows(heading: str, number: int = 0) -> list[list[str]]:
    return tables(sections(page("transcription.md"))[heading])[number]


def names(struct: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(struct)]


def test_the_fields_are_the_documented_ones_and_those_of_a_translation_come_first() -> None:
    assert [code(row[0]) for row in rows("Fields")] == names(TranscriptionBody)
    assert names(TranslationBody)[-1] == "keep_alive"
    assert ["required" in row[1] for row in rows("Fields")] == [
        field.required for field in msgspec.structs.fields(TranscriptionBody)
    ]


def test_what_counts_as_speech_is_as_documented() -> None:
    (strategy,) = (row[2] for row in rows("Fields") if code(row[0]) == "chunking_strategy")
    for field in msgspec.structs.fields(VoiceActivity):
        assert f"`{field.name}` ({field.default})" in strategy


def test_the_formats_are_the_documented_ones() -> None:
    assert {code(row[0]): code(row[1]) for row in rows("Formats")} == routes._MEDIA
    verbose = next(row[2] for row in rows("Formats") if code(row[0]) == "verbose_json")
    assert set(CODE.findall(verbose)) == set(names(shapes.VerboseTranscript))


def test_the_fields_of_a_segment_are_the_documented_ones() -> None:
    assert [name for row in rows("Formats", 1) for name in CODE.findall(row[0])] == names(shapes.TimedSegment)


def test_the_events_are_the_documented_ones() -> None:
    events: list[type[msgspec.Struct]] = [routes.TextDelta, routes.TextDone]
    for row, struct in zip(rows("Events"), events, strict=True):
        assert code(row[0]) == struct.__struct_config__.tag
        assert set(CODE.findall(row[1])) == set(names(struct))


def test_the_limits_are_the_documented_ones() -> None:
    text = page("transcription.md")
    assert f"up to {_MOST_CHANNELS} channels" in text
    assert f"shorter than {recordings._SHORTEST_S} s" in text
    assert f"more than {recordings._IN_MEMORY_BYTES // 1_000_000} MB" in text
    assert f"by default {TranscriptionSettings().min_timeout_s:g} s, or 2.5 h for an hour" in text
    assert TranscriptionSettings().timeout_s(3600) == 2.5 * 3600


def test_every_form_is_answered(client: TestClient[Application]) -> None:
    lines = [words for _, words in curl_lines() if "-F" in words]
    assert len(lines) >= 2
    for words in lines:
        fields = dict(word.split("=", 1) for option, word in pairwise(words) if option == "-F")
        assert fields.pop("file").startswith("@")
        url = next(word for word in words if word.startswith("localhost:8000"))
        files = {"file": (Path("a.wav").name, wav(1))}
        answer = client.post(url.removeprefix("localhost:8000"), data=fields, files=files)
        assert answer.status_code == 200, answer.text
        assert "This is an echo." in answer.text
