import pytest

from yapit.catalog import check_slug
from yapit.errors import InvalidInputError


@pytest.mark.parametrize("name", ["a", "A-b_c.1", "org/model", "a/b/c", ".hidden", "a..b", "x" * 96, "7"])
def test_a_good_name_is_taken(name: str) -> None:
    check_slug(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 97,
        "/a",
        "a/",
        "a//b",
        "..",
        ".",
        "...",
        "a/..",
        "../a",
        "a/./b",
        "a b",
        "a\n",
        "ä",
        "a:b",
        "a%2fb",
        "a\\b",
    ],
)
def test_another_name_is_refused_and_told_what_is_allowed(name: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 96 letters, digits") as refused:
        check_slug(name)
    assert refused.value.param == "name"
    assert len(refused.value.message) < 300
