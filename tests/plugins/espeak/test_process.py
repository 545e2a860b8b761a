"""What may take the whole process down is tried in a process of its own."""

from collections.abc import Callable
from pathlib import Path

Run = Callable[..., str]


def test_hostile_texts_neither_crash_nor_hang(run_script: Run) -> None:
    assert run_script("hostile_texts.py") == "280 texts"


def test_threads_hear_what_each_would_hear_alone(run_script: Run) -> None:
    assert run_script("many_threads.py") == "5 voices, different: []"


def test_ten_thousand_words_stream_with_flat_memory(run_script: Run) -> None:
    seconds, grown_mb = map(float, run_script("long_text.py").split())
    assert seconds > 1200
    assert grown_mb < 12


def test_a_missing_library_and_missing_data_say_so(run_script: Run, tmp_path: Path) -> None:
    library, data = run_script("bad_data.py", str(tmp_path)).splitlines()
    assert "espeak-ng cannot be loaded" in library
    assert str(tmp_path) in data


def test_the_interpreter_can_leave_in_the_middle_of_a_word(run_script: Run) -> None:
    assert run_script("quit_while_speaking.py") == ""
