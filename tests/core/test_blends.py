"""Mixtures of voices: how they are written, and how a catalog reads them."""

import pytest

from yapit import InvalidInputError, Model, Voice
from yapit.blends import Share, expand, is_blend, read_blend, spell_blend
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
        ("EN-us", "Ada"),
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


@pytest.mark.parametrize(
    ("wanted", "voice"),
    [
        ("mine,cy", "ben(1)+cy(1)"),
        ("MINE:0.5,cy:0.5", "ben(1)+cy(1)"),
        ("mine(2)+cy", "ben(2)+cy(1)"),
        ("cy(3)-mine", "cy(3)-ben(1)"),
        ("mine+mine", "ben(1)+ben(1)"),
        ("mine", "ben"),
        ("alloy:1,cy:1", "ben(1)+cy(1)"),
        ("both,cy", "Ada(1)+ben(1)+cy(2)"),
        ("cy(3)-both(2)", "cy(3)-Ada(1)-ben(1)"),
        ("elsewhere,cy", None),
        ("ada,ben", "Ada(1)+ben(1)"),
    ],
)
def test_each_name_of_a_blend_goes_through_the_voice_map(wanted: str, voice: str | None) -> None:
    names = VoiceMap({"Mine": "ben", "alloy": "BEN", "both": "ada,ben", "elsewhere": "of_another_model"})
    if voice is not None:
        assert names.resolve(MODEL, wanted) == voice
        return
    with pytest.raises(InvalidInputError, match="has no voice 'elsewhere'"):
        names.resolve(MODEL, wanted)


def test_the_voice_map_s_names_hint_at_voices_where_a_blend_has_an_unknown_one() -> None:
    for wanted in ("mine,benn", "mine:0.5,benn:0.5", "mine(2)+benn"):
        with pytest.raises(InvalidInputError, match=r"has no voice 'benn'\. Did you mean 'ben'\?") as refusal:
            VoiceMap({"mine": "ada"}).resolve(MODEL, wanted)
        assert refusal.value.param == "voice"


def test_a_blend_goes_through_the_map_for_a_model_without_a_list_too() -> None:
    model = Model(id="m", backend="b", tasks=("synthesize",), voice_blends=True)
    names = VoiceMap({"mine": "af_sky"})
    assert names.resolve(model, "mine:0.5,other:0.5") == "af_sky(1)+other(1)"
    assert names.resolve(model, "one-two") == "one-two", "none of its names is in the map"


def test_a_name_with_the_marks_of_a_blend_is_first_a_name() -> None:
    names = VoiceMap({"my-voice": "ben", "me": "cy"})
    assert names.resolve(MODEL, "my-voice") == "ben"
    named = Model(
        id="m", backend="b", tasks=("synthesize",), voices=(Voice(id="me-2"), Voice(id="cy")), voice_blends=True
    )
    assert names.resolve(named, "me-2") == "me-2"
    plain = Model(id="m", backend="b", tasks=("synthesize",), voices=VOICES)
    with pytest.raises(InvalidInputError, match="has no voice 'me,ada'"):
        names.resolve(plain, "me,ada")


def test_what_a_name_stands_for_has_the_name_s_weight() -> None:
    shares = read_blend("x(3)+y")
    meanings = {"x": "a:90,b:10"}
    assert expand(shares, meanings.get) == read_blend("a(2.7)+b(.3)+y(1)")
