"""`yapit transcribe`: files, pipes, formats, the progress bar, and what an interruption leaves."""

import json
import os
import pty
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest

from core.cli.conftest import Yapit
from live import YAPIT, until
from sounds import video_only, wav

ECHO = {"YAPIT_TRANSCRIPTION_DEFAULT_MODEL": "echo"}
TEXT = "This is an echo."
MODELS = """
models:
  - {id: three, backend: echo, tasks: [transcribe], options: {segments: 3}}
  - {id: slow, backend: echo, tasks: [transcribe], options: {segments: 3, delay_s: 60}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the command runs: two recordings and a models file."""
    (tmp_path / "a.wav").write_bytes(wav(1))
    (tmp_path / "b.wav").write_bytes(wav(2, 8_000))
    (tmp_path / "models.yaml").write_text(MODELS)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"a.wav", "b.wav", "models.yaml"}


def test_the_text_goes_to_standard_output(yapit: Yapit, folder: Path) -> None:
    done = yapit("transcribe", "a.wav", **ECHO)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{TEXT}\n", b"")
    assert yapit("transcribe", "a.wav", "b.wav", **ECHO).stdout.decode() == f"{TEXT}\n{TEXT}\n"
    assert names(folder) == set()


@pytest.mark.parametrize(
    ("name", "begins"), [("a.srt", "1\n00:00:00,000 --> 00:00:01"), ("a.VTT", "WEBVTT\n\n00:"), ("a.txt", TEXT)]
)
def test_a_file_gets_the_format_of_its_name(yapit: Yapit, folder: Path, name: str, begins: str) -> None:
    done = yapit("transcribe", "a.wav", "-o", name, **ECHO)
    assert (done.returncode, done.stdout) == (0, b"")
    assert (folder / name).read_text().startswith(begins)
    assert names(folder) == {name}


def test_a_file_is_replaced_and_not_written_into(yapit: Yapit, folder: Path) -> None:
    (folder / "a.txt").write_text("yesterday's")
    (folder / "kept.txt").hardlink_to(folder / "a.txt")
    yapit("transcribe", "a.wav", "-o", "a.txt", **ECHO)
    assert (folder / "a.txt").read_text() == f"{TEXT}\n"
    assert (folder / "kept.txt").read_text() == "yesterday's"


def test_a_format_that_is_named_counts_more(yapit: Yapit, folder: Path) -> None:
    yapit("transcribe", "a.wav", "-o", "a.txt", "--format", "srt", **ECHO)
    assert (folder / "a.txt").read_text().startswith("1\n")
    assert json.loads(yapit("transcribe", "a.wav", "--format", "json", **ECHO).stdout)["text"] == TEXT


def test_words_language_and_translation_are_asked_for(yapit: Yapit, folder: Path) -> None:
    said = json.loads(yapit("transcribe", "a.wav", "--words", "--language", "German", **ECHO).stdout)
    assert (said["language"], [word["word"] for word in said["words"]]) == ("german", TEXT.split())
    assert len(said["segments"]) == 1
    yapit("transcribe", "a.wav", "-m", "three", "--translate", "-o", "a.json")
    translated = json.loads((folder / "a.json").read_text())
    assert (translated["task"], translated["language"], len(translated["segments"])) == ("translate", "english", 3)
    assert "words" not in translated


def test_standard_input_is_read(yapit: Yapit, folder: Path) -> None:
    assert yapit("transcribe", "-", said=wav(0.5), **ECHO).stdout.decode() == f"{TEXT}\n"
    done = yapit("transcribe", "-", "a.wav", "-o", "in.srt", "-o", "-", said=wav(0.5), **ECHO)
    assert done.stdout.decode() == f"{TEXT}\n"
    assert "00:00:00,500" in (folder / "in.srt").read_text()


def test_several_files_go_to_a_folder_or_to_one_output_each(yapit: Yapit, folder: Path) -> None:
    (folder / "out").mkdir()
    yapit("transcribe", "a.wav", "b.wav", "-o", "out", "--format", "vtt", **ECHO)
    assert {path.name for path in (folder / "out").iterdir()} == {"a.vtt", "b.vtt"}
    assert "00:00:02.000" in (folder / "out/b.vtt").read_text()
    yapit("transcribe", "a.wav", "b.wav", "-o", "1.txt", "-o", "2.srt", **ECHO)
    assert (folder / "2.srt").read_text().startswith("1\n")
    assert names(folder) == {"out", "1.txt", "2.srt"}


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (("nothing.wav",), 1, "nothing.wav: No such file"),
        (("models.yaml",), 1, "models.yaml: the file is not audio"),
        (("video.mp4",), 1, "video.mp4: the file has no audio stream"),
        (("a.wav", "--language", "klingonese"), 1, "'klingonese' is no language"),
        (("a.wav", "--model", "threee"), 1, "Did you mean 'three'?"),
        (("a.wav", "--format", "docx"), 1, "the format 'docx' is unknown"),
        (("a.wav", "-o", "a.doc"), 1, "the ending '.doc' says no format"),
        (("a.wav", "-o", "no/such/a.srt"), 1, "there is no folder"),
        (("a.wav", "--words", "--format", "srt"), 2, "verbose_json only"),
        (("a.wav", "b.wav", "-o", "a.srt"), 2, "2 files and 1 outputs"),
        (("a.wav", "b.wav", "-o", "a.srt", "-o", "a.srt"), 2, "the same file"),
        (("a.wav", "b.wav", "--format", "srt"), 2, "Subtitles of several files"),
        (("-", "-"), 2, "only once"),
        ((), 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_written(
    yapit: Yapit, folder: Path, arguments: tuple[str, ...], status: int, line: str
) -> None:
    (folder / "video.mp4").write_bytes(video_only())
    done = yapit("transcribe", *arguments, **ECHO)
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr.decode()).split())
    assert (done.returncode, done.stdout) == (status, b"")
    assert line in said
    assert b"Traceback" not in done.stderr
    assert names(folder) == {"video.mp4"}


def on_terminal(folder: Path, *arguments: str, until_says: bytes, then: int | None = None) -> tuple[int, bytes]:
    """Run the command with a terminal as standard error, and send it a signal once it says something."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [YAPIT, "transcribe", *arguments],
        cwd=folder,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "TMPDIR": str(folder / "temporary")},
        stderr=inner,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(inner)
    said = b""
    try:
        while select.select([outer], [], [], 20)[0]:
            try:
                piece = os.read(outer, 4096)
            except OSError:  # nobody has the other end any more
                break
            said += piece
            if then is not None and until_says in said:
                process.send_signal(then)
                then = None
        return process.wait(20), said
    finally:
        process.kill()
        process.wait()
        os.close(outer)


def test_a_terminal_is_shown_how_many_seconds_are_done(folder: Path) -> None:
    (folder / "temporary").mkdir()
    status, said = on_terminal(folder, "b.wav", "-m", "three", until_says=b"")
    assert status == 0
    assert b"b.wav" in said
    assert b"2 of 2 s" in said


def test_an_interruption_leaves_nothing_half_written(folder: Path) -> None:
    """The recording is long enough to be on disk, and there is a transcript of yesterday."""
    (folder / "temporary").mkdir()
    (folder / "long.wav").write_bytes(wav(130))
    (folder / "long.srt").write_text("yesterday's")
    status, said = on_terminal(
        folder, "long.wav", "-m", "slow", "-o", "long.srt", until_says=b"0 of 130 s", then=signal.SIGINT
    )
    assert (status, b"Traceback" in said) == (130, False)
    assert (folder / "long.srt").read_text() == "yesterday's"
    assert names(folder) == {"temporary", "long.wav", "long.srt"}
    assert until(lambda: list((folder / "temporary").iterdir()) == [])
