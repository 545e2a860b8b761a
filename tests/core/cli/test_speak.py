"""`yapit speak`: files, pipes, voices, and what is wrong in one line."""

import json
import wave
from pathlib import Path

import pytest

from core.cli.conftest import Yapit
from yapit.audio import FORMATS, decode


def seconds(audio: bytes) -> float:
    return len(decode(audio, sample_rate=16_000)) / 2 / 16_000


@pytest.mark.parametrize("name", ["hello.wav", "hello.mp3", "hello.opus", "hello.ogg", "hello.aac", "hello.FLAC"])
def test_a_file_gets_the_format_of_its_name(yapit: Yapit, tmp_path: Path, name: str) -> None:
    done = yapit("speak", "Hello, this is yapit.", "-o", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert 1 < seconds((tmp_path / name).read_bytes()) < 4
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_wav_file_has_exact_sizes(yapit: Yapit, tmp_path: Path) -> None:
    yapit("speak", "Hello.", "-o", "hello.wav")
    with wave.open(str(tmp_path / "hello.wav")) as file:
        assert file.getnframes() * 2 == len(file.readframes(1 << 30))


def test_standard_input_to_a_file_and_to_standard_output(yapit: Yapit, tmp_path: Path) -> None:
    assert yapit("speak", "-", "-o", "out.opus", said="Grüße aus Köln.".encode()).returncode == 0
    assert (tmp_path / "out.opus").read_bytes().startswith(b"OggS")
    piped = yapit("speak", "-", "-o", "-", "--format", "flac", said=b"hello")
    assert piped.stdout.startswith(b"fLaC")
    assert seconds(yapit("speak", "hello").stdout) > 0.3


def test_model_voice_and_speed(yapit: Yapit, tmp_path: Path) -> None:
    def spoken(*arguments: str) -> float:
        assert yapit("speak", "one two three", "-o", "x.wav", *arguments).returncode == 0
        return seconds((tmp_path / "x.wav").read_bytes())

    assert spoken("--model", "echo") == pytest.approx(13 * 0.06, abs=0.02)
    assert spoken("--speed", "2") == pytest.approx(spoken() / 2, rel=0.2)
    assert spoken("--voice", "EN-GB+f3") > 0.3


def test_a_long_text_is_streamed_to_its_file(yapit: Yapit, tmp_path: Path) -> None:
    text = b"This is a sentence of a long text. " * 700
    assert yapit("speak", "-", "-o", "long.wav", "--speed", "4", said=text).returncode == 0
    assert (tmp_path / "long.wav").stat().st_size > 5_000_000
    with wave.open(str(tmp_path / "long.wav")) as file:
        assert file.getframerate() == 22_050


def test_voices_are_listed_for_people_and_for_programs(yapit: Yapit) -> None:
    lines = yapit("speak", "--voices").stdout.decode().splitlines()
    assert len(lines) > 120
    assert any(line.split("\t")[0] == "en-us" for line in lines)
    voices = json.loads(yapit("speak", "--voices", "--model", "echo", "--json").stdout)
    assert [voice["id"] for voice in voices] == ["low", "high"]


@pytest.mark.parametrize(
    ("arguments", "said", "status", "line"),
    [
        (("speak", "x", "-o", "x.xyz"), b"", 1, "the format 'xyz' is unknown"),
        (("speak", "x", "-o", "x.wav", "--voice", "en-uz"), b"", 1, "no voice 'en-uz'. Did you mean 'en-us'"),
        (("speak", "x", "-o", "x.wav", "--model", "esspeak"), b"", 1, "Did you mean 'espeak'?"),
        (("speak", "  ", "-o", "x.wav"), b"", 1, "nothing to say"),
        (("speak", "-", "-o", "x.wav"), b"\xff\xfe", 1, "standard input is not UTF-8"),
        (("speak", "x", "-o", "no/such/folder/x.wav"), b"", 1, "no/such/folder/.x.wav.part: No such file"),
        (("speak", "x", "-o", "x.wav", "--speed", "9"), b"", 2, "0.25<=x<=4"),
        (("speak",), b"", 2, "Give the TEXT"),
        (("nonsense",), b"", 2, "nonsense"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    yapit: Yapit, tmp_path: Path, arguments: tuple[str, ...], said: bytes, status: int, line: str
) -> None:
    done = yapit(*arguments, said=said)
    assert done.returncode == status
    assert line in " ".join(done.stderr.decode().split())
    assert b"Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_format_has_an_ending() -> None:
    assert set(FORMATS) == {"mp3", "opus", "aac", "flac", "wav", "pcm"}
