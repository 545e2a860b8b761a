"""From text to phonemes: markup, languages, tags, cuts; no model needed."""

# ruff: noqa: RUF001 - phonemes and the languages of many scripts are meant

import random
import re
import sys
from importlib.util import find_spec

import pytest
import spacy

from models.kokoros import VOCABULARY
from yapit import InvalidInputError
from yapit_plugin_kokoro import sounds as sounds_module
from yapit_plugin_kokoro.cutting import LONGEST, cut
from yapit_plugin_kokoro.english import TAGGER
from yapit_plugin_kokoro.languages import letter_of
from yapit_plugin_kokoro.markup import Passage, Pause, read
from yapit_plugin_kokoro.sounds import Readers
from yapit_plugin_kokoro.tagging import tags
from yapit_plugin_kokoro.timing import Clock

# What reads Japanese is compiled when it is installed; not every machine can.
japanese = pytest.mark.skipif(find_spec("pyopenjtalk") is None, reason="what reads Japanese is not installed")


@pytest.fixture(scope="module")
def readers() -> Readers:
    return Readers(VOCABULARY)


def said(readers: Readers, letter: str, text: str, lexicon: dict[str, str] | None = None) -> str:
    parts = read(text, markup=True, lexicon=lexicon or {})
    return " | ".join(readers.read(part, letter).phonemes for part in parts if isinstance(part, Passage))


@pytest.mark.parametrize(
    ("letter", "text", "phonemes"),
    [
        ("a", "I will read it. I have read it.", "ˌI wɪl ɹˈid ɪt. ˌI hæv ɹˈɛd ɪt."),
        ("a", "The record is here to record.", "ðə ɹˈɛkəɹd ɪz hˈɪɹ tə ɹəkˈɔɹd."),
        ("a", "We used to use the used one.", "wˌi jˈust tə jˈuz ðə jˈuzd wˈʌn."),
        ("a", "A well-known plan - vitamin A!", "ɐ wˌɛlnˈOn plˈæn — vˈITəmən ˈA!"),
        ("b", "The bath.", "ðə bˈɑːθ."),
        ("a", "xkcd!", "ˌɛkskˌAsˌidˈi!"),
        ("a", "[Kokoro](/kˈOkəɹO/) sings", "kˈOkəɹO sˈɪŋz"),
        ("a", "One.\n\nTwo\nthree", "wˈʌn. | tˈu θɹˈi"),
        ("e", "¿Qué tal, [Ana](/ˈaba/)? Bien.", "¿kˈe tˈal, ˈaba? bjˈen."),
        ("f", "« Voilà » (oui).", "“ vwalˈa ” (wˈi)."),
        ("z", "你好，world！", "ni↓xau↓, wˈɜɹld !"),
        pytest.param("j", "こんにちは、世界！", "koɲɲiʨiβa, sekai!", marks=japanese),
    ],
)
def test_text_is_said(readers: Readers, letter: str, text: str, phonemes: str) -> None:
    assert said(readers, letter, text) == phonemes


@pytest.mark.parametrize(
    "text", ["You [can](+2) go.", "The [big old](-1) house.", "[They](-2) left.", "It [was](0.5)."]
)
def test_stress_is_changed_as_misaki_changes_it(readers: Readers, text: str) -> None:
    theirs, _ = readers._reader("a")(text)  # type: ignore[operator]  # the English one is misaki's
    assert said(readers, "a", text) == theirs
    assert theirs != said(readers, "a", re.sub(r"\[|\]\(.*?\)", "", text))
    assert said(readers, "e", "La [casa](+2).") == said(readers, "e", "La casa.")


def test_sounds_that_the_model_has_not_become_the_nearest(readers: Readers) -> None:
    assert said(readers, "a", "[x](/gɫʀʏ/)") == "ɡlʁy"


def test_every_language_is_read_without_the_network(readers: Readers) -> None:
    for letter, text in {
        "e": "Hola",
        "f": "Bonjour",
        "h": "नमस्ते",
        "i": "Ciao",
        "p": "Olá",
        **({} if find_spec("pyopenjtalk") is None else {"j": "はい"}),
        "z": "你",
    }.items():
        phonemes = said(readers, letter, text)
        assert phonemes
        assert set(phonemes) <= VOCABULARY.keys()


def test_chinese_of_version_1_1_is_said_in_its_own_letters() -> None:
    assert said(Readers({**VOCABULARY, "ㄅ": 30}), "z", "你好 OK").startswith("ㄋㄧ2ㄏㄠ3 ")


def test_a_language_whose_extra_is_missing_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("misaki.ja", "unidic_lite", "misaki.zh"):
        monkeypatch.setitem(sys.modules, name, None)
    for letter, extra in (("j", "ja"), ("z", "zh")):
        with pytest.raises(InvalidInputError, match=rf"pip install 'yapit-plugin-kokoro\[{extra}\]'"):
            said(Readers(VOCABULARY), letter, "日本")


def test_the_tagger_of_spacy_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = list[str]()
    rules = sounds_module.Readers(VOCABULARY)._reader("a")
    monkeypatch.setattr(spacy.util, "is_package", lambda name: name == TAGGER)

    def load(name: str, **_: object) -> object:
        loaded.append(name)
        return rules.nlp  # type: ignore[attr-defined]  # it is the English one

    monkeypatch.setattr(spacy, "load", load)
    assert said(Readers(VOCABULARY), "a", "Hello.") == "həlˈO."
    assert loaded == [TAGGER]


def test_random_text_is_read_and_its_words_are_found(readers: Readers) -> None:
    chance = random.Random(5)  # noqa: S311 - texts, not secrets
    letters = "aeiou bcdst'’\"“”-—.,:;!?()[]{}$£€%&@#*/_0123456789ÀéßŁ你日नм😀\u0301\u200b\ud800\x00\n²½" + " " * 12
    for _ in range(150):
        text = "".join(chance.choices(letters, k=40))
        for part in read(text, markup=True, lexicon={"a": "ˈA", "co.": "kˈO"}):
            assert isinstance(part, Passage)
            for letter in "ae":
                found = readers.read(part, letter)
                for word in found.words:
                    assert 0 <= word.start < word.stop <= len(found.phonemes)
                    assert 0 <= word.first <= word.last <= len(part.text)


@pytest.mark.parametrize(
    ("tag", "voice", "letter"),
    [
        ("en", "a", "a"), ("en", "b", "b"), ("en", "f", "a"), ("EN_us", "b", "a"), ("en-AU", "a", "b"), ("b", "a", "b"),
        ("es-419", "a", "e"), ("pt", "a", "p"), ("cmn", "a", "z"), ("zh-Hant-TW", "a", "z"), ("fr-CA", "a", "f"),
    ],
)  # fmt: skip
def test_a_tag_names_a_language(tag: str, voice: str, letter: str) -> None:
    assert letter_of(tag, param="language", voice=voice) == letter


def test_markup_is_read() -> None:
    text = "A [pause:250ms][B c](/bˈi/), [not](closed [pause:x]"
    first, pause, second = read(text, markup=True, lexicon={})
    assert (first, pause) == (Passage("A", [0], ()), Pause(0.25))
    assert isinstance(second, Passage)
    assert second.text == "B c, [not](closed [pause:x]"
    assert [second.text[given.start : given.stop] for given in second.given] == ["B c"]
    assert [text[place] for place in second.places] == list(second.text)
    (plain,) = read(text, markup=False, lexicon={})
    assert isinstance(plain, Passage)
    assert plain.text == text


def test_long_text_is_read_sentence_by_sentence_and_no_given_word_is_cut() -> None:
    text = "It is [a b c d](/ˈA/) so. " * 100
    parts = [part for part in read(text, markup=True, lexicon={}) if isinstance(part, Passage)]
    assert " ".join(part.text for part in parts) == ("It is a b c d so. " * 100).strip()
    assert sum(len(part.given) for part in parts) == 100
    assert len(parts) > 4
    (whole,) = read("[" + "word " * 200 + "](/wˈɜɹd/)", markup=True, lexicon={})
    assert isinstance(whole, Passage)
    assert len(whole.given) == 1


@pytest.mark.parametrize(
    ("phonemes", "longest", "pieces"),
    [
        ("ab cd. ef, gh", 100, ["ab cd. ef, gh"]),
        ("ab cd. ef, gh", 12, ["ab cd. ", "ef, gh"]),
        ("ab cd; ef, gh", 12, ["ab cd; ", "ef, gh"]),
        ("ab, cd ef", 7, ["ab, ", "cd ef"]),
        ("ab cd", 4, ["ab ", "cd"]),
        ("abcdefg", 3, ["abc", "def", "g"]),
        ("...... ", 3, ["...", "...", " "]),
        ("“ab.” cd", 6, ["“ab.” ", "cd"]),
        ("", 5, [""]),
    ],
)
def test_phonemes_are_cut_at_the_best_pause(phonemes: str, longest: int, pieces: list[str]) -> None:
    edges = cut(phonemes, longest)
    assert [phonemes[start:stop] for start, stop in edges] == pieces


def test_no_cut_loses_a_phoneme_or_is_too_long() -> None:
    chance = random.Random(6)  # noqa: S311 - texts, not secrets
    for _ in range(300):
        phonemes = "".join(chance.choices("abcdefgh   .,;—", k=chance.randint(1, 3000)))
        edges = cut(phonemes)
        assert "".join(phonemes[start:stop] for start, stop in edges) == phonemes
        # A space that ends a piece is not said.
        assert all(
            0 < len(phonemes[start:stop].rstrip()) <= LONGEST or not phonemes[start:stop].strip()
            for start, stop in edges
        )


def test_the_space_between_words_belongs_to_both() -> None:
    clock = Clock("ab?c d", [5, 2, 4, 6, 2, 8, 3], {"a": 1, "b": 2, "c": 3, " ": 4, "d": 5})
    assert clock.start_s(0) == 4 / 80
    assert clock.end_s(2) == clock.start_s(2) == 16 / 80
    assert clock.end_s(4) == clock.start_s(5) == (4 + 2 * 12 + 2) / 80
    assert clock.end_s(6) == (4 + 2 * (12 + 2 + 8)) / 80


def test_tags_of_words() -> None:
    text = "She will read the IT report , as NASA did - “ quickly ” , in Paris ."
    wanted = "PRP MD VB DT NNP NN , IN NNP VBD : `` RB '' , IN NNP ."
    assert " ".join(tags(text.split(), [True] * 18)) == wanted
