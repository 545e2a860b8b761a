"""Mixtures of voices: how they are written, and how a catalog reads them."""

import pytest

from yapit import InvalidInputError, Model, Voice
from yapit.blends import Share, is_blend, read_blend, spell_blend
from yapit.voices import VoiceMap

VOICES = (Voice(id="Ada", languages=("en-US",)), Voice(id="ben", languages=("fr",)), Voice(id="cy"))
MODEL = Model(
    id="m",
    backend="b",
    tasks=("synthesize",),
    voices=VOICES,
    voice_aliases={"alloy": "Ada", "choir": "ada:2,ben:1"},
    voice_blends=True,
    defaults={"voice": "cy"},
)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("a,b", [("a", 1), ("b", 1)]),
        (" a , b ", [("a", 1), ("b", 1)]),
        ("a:60,b:40", [("a", 1.5), ("b", 1)]),
        ("a(2)+b(1)", [("a", 2), ("b", 1)]),
        ("a(2)+b", [("a", 2), ("b", 1)]),
        ("a ( 1.5 ) - b(.5)", [("a", 3), ("b", -1)]),
        ("a:0,b:5", [("a", 0), ("b", 1)]),
        ("a+a", [("a", 1), ("a", 1)]),
        ("a", [("a", 1)]),
    ],
)
def test_each_spelling_is_read(text: str, shares: list[tuple[str, float]]) -> None:
    assert read_blend(text) == tuple(Share(*share) for share in shares)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "a,",
        ",a",
        "-a",
        "a++b",
        "a(2",
        "a)2(",
        "a(x)+b",
        "a:0,b:0",
        "a b",
        "a:1:2",
        "a(1)b(2)",
        "a(-1)",
        "a(1e9)",
    ],
)
def test_what_is_no_blend_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="neither a voice nor a blend") as refusal:
        read_blend(text)
    assert refusal.value.param == "voice"


def test_a_blend_has_a_bound() -> None:
    assert len(read_blend(",".join(["a"] * 32))) == 32
    with pytest.raises(InvalidInputError, match="at most 32"):
        read_blend(",".join(["a"] * 33))
    with pytest.raises(InvalidInputError):
        read_blend("a," * 1_000_000)


def test_equal_blends_have_one_spelling_that_is_read_again() -> None:
    for text in ("a:50,b:50", "a,b", "a+b(1)", "a(7)+b(7)"):
        assert spell_blend(read_blend(text)) == "a(1)+b(1)"
    assert spell_blend(read_blend("a(2)-b")) == "a(2)-b(1)"
    assert spell_blend(read_blend("a(3)")) == "a"
    for text in ("a:33,b:67", "a(3)-b(.7)+c"):
        shares = read_blend(spell_blend(read_blend(text)))
        assert spell_blend(shares) == spell_blend(read_blend(text))
    assert [is_blend(text) for text in ("a_b", "a,b", "a(1)", "a:1", "a-b")] == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("wanted", "voice"),
    [
        ("ada,BEN", "Ada(1)+ben(1)"),
        ("alloy:10,cy:30", "Ada(1)+cy(3)"),
        ("fr+en-us", None),
        ("Choir", "Ada(2)+ben(1)"),
        ("ada", "Ada"),
        ("fr", "ben"),
        (None, "cy"),
    ],
)
def test_a_catalog_knows_the_voices_of_a_blend(wanted: str | None, voice: str | None) -> None:
    if voice is None:
        with pytest.raises(InvalidInputError):
            MODEL.voice(wanted)
    else:
        assert MODEL.voice(wanted) == voice


def test_an_unknown_voice_in_a_blend_is_named_with_the_closest() -> None:
    with pytest.raises(InvalidInputError, match=r"has no voice 'benn'\. Did you mean 'ben'\?") as refusal:
        MODEL.voice("ada,benn")
    assert refusal.value.param == "voice"
    with pytest.raises(InvalidInputError, match="has no voice 'choir'"):
        MODEL.voice("choir,ada")


def test_a_model_that_takes_no_blends_refuses_them() -> None:
    with pytest.raises(InvalidInputError, match="has no voice 'ada,ben'"):
        Model(id="m", backend="b", tasks=("synthesize",), voices=VOICES).voice("ada,ben")


def test_the_voice_map_may_name_a_blend() -> None:
    assert VoiceMap({"mine": "ada(3)+cy"}).resolve(MODEL, "MINE") == "Ada(3)+cy(1)"
