import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yapit.errors import SettingsError
from yapit.settings import Settings, load
from yapit.urls import masked_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://host/name", "postgresql://host/name"),
        ("postgresql://user@host:5432/name", "postgresql://user@host:5432/name"),
        ("postgresql://user:s3cret@host/name", "postgresql://user:…@host/name"),
        ("postgresql://:s3cret@host/name", "postgresql://:…@host/name"),
        ("postgresql://user:s3/cr@et:x@host/name?a=b", "postgresql://user:…@host/name?a=b"),
        ("postgresql://host/name?user=u&password=s3cret&a=b", "postgresql://host/name?user=u&password=…&a=b"),
        ("postgresql://host/name?sslpassword=s3cret#x", "postgresql://host/name?sslpassword=…#x"),
        ("postgresql://u@host/name?passfile=s3cret&sslkey=s3cret", "postgresql://u@host/name?passfile=…&sslkey=…"),
        ("sqlite:////var/lib/yapit.db", "sqlite:////var/lib/yapit.db"),
        ("user:s3cret@host/name", "…"),
        ("s3cret", "…"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@given(st.text(min_size=1), st.sampled_from(["postgresql", "sqlite", "x+y"]))
def test_no_password_is_shown_whatever_is_in_it(rest: str, scheme: str) -> None:
    password = f"s3{rest}cret"
    assert "cret" not in masked_url(f"{scheme}://user:{password}@host/name")
    assert "s3" not in masked_url(f"{scheme}://user:{password}@host/name")


@pytest.mark.parametrize("name", ["YAPIT_DATABASE", "DATABASE_URL"])
def test_the_database_is_set_by_the_environment_and_shown_masked(name: str, tmp_path: Path) -> None:
    effective = load({name: "postgresql://user:s3cret@host/name"}, folder=tmp_path)
    assert effective.settings.database == "postgresql://user:s3cret@host/name"
    rows = {path: (value, source) for path, value, source in effective.rows()}
    assert rows["database"] == ("postgresql://user:…@host/name", name)
    assert "s3cret" not in json.dumps([*effective.rows()])


def test_no_database_is_shown_as_none(tmp_path: Path) -> None:
    assert {path: value for path, value, _ in load({}, folder=tmp_path).rows()}["database"] is None
    assert Settings().database is None


def test_a_wrong_value_is_refused_without_being_shown(tmp_path: Path) -> None:
    (tmp_path / "yapit.yaml").write_text("database: {password: s3cret}")
    with pytest.raises(SettingsError, match=r"database") as refused:
        load({}, folder=tmp_path)
    assert "s3cret" not in refused.value.message


@pytest.mark.parametrize("value", ["0", "-1"])
def test_the_database_is_not_asked_all_the_time(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="models_refresh_s"):
        load({"YAPIT_MODELS_REFRESH_S": value}, folder=tmp_path)
