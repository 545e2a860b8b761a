"""Ollama's own client brings, lists, shows and removes models here."""

import json
from collections.abc import Iterator

import httpx
import ollama
import pytest

from core.server.managing.conftest import BIG, MEGABYTE, Managed
from live import until


@pytest.fixture
def client(api: Managed) -> Iterator[ollama.Client]:
    found = ollama.Client(host=api.server.url)
    yield found
    found._client.close()


def names(client: ollama.Client) -> list[str | None]:
    return [model.model for model in client.list().models]


def test_a_model_is_pulled_listed_shown_and_deleted(client: ollama.Client) -> None:
    told = list(client.pull("org/big", stream=True))
    assert told[0].status == "pulling manifest"
    layers = [each for each in told if each.digest]
    assert {(each.total, each.digest) for each in layers} == {(3_000_123, layers[0].digest)}
    done = [each.completed or 0 for each in layers]
    assert (done == sorted(done), done[-1]) == (True, 3_000_123)
    assert [each.status for each in told[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
    assert "org/big" in names(client)
    (listed,) = [model for model in client.list().models if model.model == "org/big"]
    assert (listed.size, listed.details.family if listed.details else None) == (3_000_123, "hf-generic")
    shown = client.show("org/big:latest")
    assert shown.capabilities == ["classify"]
    assert client.ps().models == []
    assert client.delete("org/big").status == "success"
    assert "org/big" not in names(client)
    with pytest.raises(ollama.ResponseError, match="not found") as missing:
        client.delete("org/big")
    assert missing.value.status_code == 404


def test_a_pull_without_stream_answers_at_the_end(client: ollama.Client) -> None:
    assert client.pull("hf.co/org/small").status == "success"
    assert client.pull("org/small").status == "success", "it is here already"
    assert (client.show("org/small").modelinfo or {})["general.parameter_count"] == 5007


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [("nobody", 404, "does not exist"), ("org/none", 404, "no repository"), ("org/gated", 403, "gated")],
)
def test_what_cannot_be_pulled_is_refused_in_ollamas_shape(
    api: Managed, client: ollama.Client, name: str, status: int, words: str
) -> None:
    with pytest.raises(ollama.ResponseError, match=words) as refused:
        client.pull(name)
    assert refused.value.status_code == status
    assert isinstance(api.client.post("/api/pull", json={"model": name}).json()["error"], str)
    assert api.client.post("/api/pull", json={}).status_code == 400


def test_an_error_in_the_middle_is_a_line(api: Managed, client: ollama.Client) -> None:
    api.hub.spoil(BIG, times=None)
    with pytest.raises(ollama.ResponseError) as failed:
        list(client.pull("org/big", stream=True))
    assert failed.value.error
    lines = api.client.post("/api/pull", json={"model": "org/big"}).text.splitlines()
    assert [*json.loads(lines[-1])] == ["error"]


def test_a_client_who_leaves_does_not_end_the_pull(api: Managed) -> None:
    held = api.hub.hold(BIG, 2 * MEGABYTE)
    with httpx.stream("POST", f"{api.server.url}/api/pull", json={"model": "org/big"}, timeout=20) as answer:
        lines = answer.iter_lines()  # named: httpx ends the stream with its iterator
        next(lines)
        assert held.reached.wait(20)
    assert until(lambda: "client_left" in api.server.events)
    held.released.set()
    assert until(lambda: api.client.get("/models/download/org/big/info").json()["info"]["downloaded"] is True)
    assert api.hub.fetched.count(BIG) == 1


def test_the_version_is_told(api: Managed) -> None:
    assert api.client.get("/api/version").json()["version"].count(".") == 2
