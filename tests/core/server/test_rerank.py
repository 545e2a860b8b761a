"""POST /v1/rerank and /v1/score over HTTP: each dialect's request and response."""

import math
from pathlib import Path
from typing import Any

import httpx
import pytest

from live import MODELS, Server, serve, until
from yapit.errors import BackendError
from yapit.schemas import RerankRequest, Score
from yapit.server import rerank
from yapit.server.calls import ITEMS

RERANK = "/v1/rerank"
SCORE = "/v1/score"
DOCUMENTS = ["red", "blue sky", "blue sky over me", "blue"]
GOOD: dict[str, Any] = {"model": "echo", "query": "blue sky", "documents": DOCUMENTS}
BEST = [(1, 1.0), (2, 1.0), (3, 0.5), (0, 0.0)]  # what is equal stays in the order of the request


def ranked(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(RERANK, json=GOOD | body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def order(found: dict[str, Any]) -> list[tuple[int, float]]:
    return [(item["index"], item["relevance_score"]) for item in found["results"]]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_the_best_come_first_in_what_every_dialect_reads(client: httpx.Client, path: str) -> None:
    found = client.post(path, json=GOOD).json()
    assert order(found) == BEST
    assert found["data"] == found["results"]
    assert all(set(item) == {"index", "relevance_score"} for item in found["results"])
    assert (found["object"], found["model"]) == ("rerank", "echo")
    assert found["id"].startswith("rerank-")
    tokens = sum(len(text.split()) for text in DOCUMENTS)
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert found["meta"]["api_version"] == {"version": "2"}
    assert found["meta"]["billed_units"] == {"search_units": 1}
    assert found["meta"]["tokens"] == {"input_tokens": tokens, "output_tokens": 0}


def test_each_answer_has_an_id_of_its_own(client: httpx.Client) -> None:
    assert ranked(client)["id"] != ranked(client)["id"]


@pytest.mark.parametrize("name", ["top_n", "top_k"])
@pytest.mark.parametrize(("value", "count"), [(None, 4), (0, 4), (1, 1), (3, 3), (4, 4), (100, 4)])
def test_the_best_are_cut_after_they_are_ordered(client: httpx.Client, name: str, value: int, count: int) -> None:
    assert order(ranked(client, **{name: value})) == BEST[:count]


def test_documents_come_back_where_they_are_asked_for(client: httpx.Client) -> None:
    found = ranked(client, return_documents=True)
    assert [item["document"] for item in found["results"]] == [{"text": DOCUMENTS[index]} for index, _ in BEST]
    assert "document" not in ranked(client, return_documents=False)["results"][0]


def test_documents_are_plain_texts_for_infinitys_clients(client: httpx.Client) -> None:
    found = client.post("/infinity/rerank", json=GOOD | {"return_documents": True}).json()
    assert [item["document"] for item in found["results"]] == [DOCUMENTS[index] for index, _ in BEST]
    assert order(found) == BEST


def test_documents_may_be_objects(client: httpx.Client) -> None:
    assert order(ranked(client, documents=[{"text": text, "id": 5} for text in DOCUMENTS])) == BEST
    assert order(ranked(client, documents=["red", {"text": "blue sky"}])) == [(1, 1.0), (0, 0.0)]


def test_rank_fields_are_joined_as_yaml(client: httpx.Client) -> None:
    documents = [{"title": "red"}, {"body": "sky", "title": "blue", "text": "green"}]
    found = ranked(client, documents=documents, rank_fields=["title", "body"], return_documents=True)
    assert order(found) == [(1, 1.0), (0, 0.0)]
    assert [item["document"]["text"] for item in found["results"]] == ["title: blue\nbody: sky", "title: red"]
    found = ranked(client, documents=[{"text": "blue"}], rank_fields=["title"], return_documents=True)
    assert found["results"][0]["document"] == {"text": "blue"}


def test_texts_are_answered_as_tei_answers_them(client: httpx.Client) -> None:
    body: dict[str, Any] = {"query": "blue sky", "texts": DOCUMENTS, "truncate": True, "truncation_direction": "Right"}
    body |= {"model": "echo", "raw_scores": False}
    assert client.post("/rerank", json=body).json() == [{"index": index, "score": value} for index, value in BEST]
    found = client.post("/rerank", json=body | {"return_text": True, "top_n": 2}).json()
    assert found == [{"index": index, "score": value, "text": DOCUMENTS[index]} for index, value in BEST[:2]]


def test_the_model_may_be_left_out_where_only_one_ranks(client: httpx.Client, tmp_path: Path) -> None:
    body = {"query": "blue", "texts": ["blue"]}
    refused = client.post("/rerank", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    (tmp_path / "models.yaml").write_text(MODELS)
    with serve(tmp_path, YAPIT_MODELS="second,echo") as one:
        assert httpx.post(f"{one.url}/rerank", json=body).json() == [{"index": 0, "score": 1.0}]


def test_documents_are_cut_where_it_is_asked_for(client: httpx.Client) -> None:
    assert order(ranked(client, max_tokens_per_doc=1)) == [(1, 0.5), (2, 0.5), (3, 0.5), (0, 0.0)]
    assert ranked(client, max_tokens_per_doc=1)["usage"]["total_tokens"] == len(DOCUMENTS)


@pytest.mark.parametrize(
    "ignored",
    [
        {"top_n": None, "max_tokens_per_doc": None, "return_documents": None, "rank_fields": None, "instruction": None},
        {"priority": 0, "truncate_prompt_tokens": -1, "max_chunks_per_doc": 10, "unknown": [1]},
        {"max_tokens_per_doc": 4096, "raw_scores": True, "instruction": "Find colours.", "options": {"a": 1}},
    ],
)
def test_what_is_null_unknown_or_our_own_does_no_harm(client: httpx.Client, ignored: dict[str, Any]) -> None:
    assert order(ranked(client, **ignored)) == BEST


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"query": ""}, 400, "query", "empty_input"),
        ({"query": " \n"}, 400, "query", "empty_input"),
        ({"query": None}, 400, "query", "invalid_value"),
        ({"query": ["blue"]}, 400, "query", "invalid_value"),
        ({"documents": []}, 400, "documents", "empty_input"),
        ({"documents": None}, 400, "documents", "missing_required_parameter"),
        ({"documents": "blue"}, 400, "documents", "invalid_value"),
        ({"documents": ["a", 5]}, 400, "documents[1]", "invalid_value"),
        ({"documents": ["a", {"title": "b"}]}, 400, "documents[1]", "invalid_value"),
        ({"documents": ["a", {"text": 5}]}, 400, "documents[1]", "invalid_value"),
        ({"documents": [{"a": "b"}], "rank_fields": ["c"]}, 400, "documents[0]", "invalid_value"),
        ({"documents": ["a"] * (ITEMS + 1)}, 400, "documents", "array_above_max_length"),
        ({"documents": ["a", "x" * 80_000]}, 400, "documents[1]", "input_too_long"),
        ({"documents": None, "texts": ["a", "x" * 80_000]}, 400, "texts[1]", "input_too_long"),
        ({"documents": None, "texts": []}, 400, "texts", "empty_input"),
        ({"texts": ["a", {"text": "b"}]}, 400, "texts[1]", "invalid_value"),
        ({"top_n": -1}, 400, "top_n", "invalid_value"),
        ({"top_k": 1.5}, 400, "top_k", "invalid_value"),
        ({"max_tokens_per_doc": 0}, 400, "max_tokens_per_doc", "invalid_value"),
        ({"keep_alive": "soon"}, 400, "keep_alive", "invalid_value"),
        ({"model": None}, 400, "model", "missing_required_parameter"),
        ({"model": "ecko"}, 404, "model", "model_not_found"),
        ({"model": "deaf"}, 400, "model", "unsupported_task"),
    ],
)
def test_a_refused_value_is_named_as_the_client_named_it(
    client: httpx.Client, change: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = client.post(RERANK, json=GOOD | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert param in error["message"] or param == "model"
    assert "pairs" not in error["message"]


def test_too_many_documents_are_told_the_limit(client: httpx.Client) -> None:
    assert len(ranked(client, documents=["a"] * ITEMS)["results"]) == ITEMS
    answer = client.post(RERANK, json=GOOD | {"documents": ["a"] * 3000})
    assert answer.json()["error"]["message"] == (
        "Invalid 'documents': at most 2048 items are taken in one request, and these are 3000."
    )


def test_a_client_that_leaves_frees_the_model(server: Server) -> None:
    before = server.events.count("client_left")
    with httpx.Client(base_url=server.url, timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post(RERANK, json=GOOD | {"model": "pensive"})
    assert until(lambda: server.events.count("client_left") == before + 1)
    assert until(lambda: httpx.get(f"{server.url}/health").json()["running"] == 0)


# ── what the model is asked ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("change", "raw"),
    [
        ({}, False),
        ({"raw_scores": True}, True),
        ({"use_activation": False}, True),
        ({"use_activation": True}, False),
        ({"raw_scores": False, "use_activation": None}, False),
    ],
)
def test_raw_scores_have_two_names(change: dict[str, Any], *, raw: bool) -> None:
    body = rerank.RerankBody(query="q", instruction="Find it.", options={"a": 1}, **change)
    assert rerank.ranking_request(body, (("q", "d"),), 7) == RerankRequest(
        pairs=(("q", "d"),), raw_scores=raw, instruction="Find it.", max_document_tokens=7, options={"a": 1}
    )


# ── score ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("path", ["/v1/score", "/score"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"text_1": "blue sky", "text_2": "blue"}, [0.5]),
        ({"text_1": "blue sky", "text_2": ["red", "blue", "sky blue"]}, [0.0, 0.5, 1.0]),
        ({"text_1": ["blue sky"], "text_2": ["red", "blue"]}, [0.0, 0.5]),
        ({"text_1": ["red", "blue sky"], "text_2": ["red", "blue"]}, [1.0, 0.5]),
        ({"text_1": ["red", "blue sky", "blue"], "text_2": "blue"}, [0.0, 0.5, 1.0]),
        ({"queries": "blue sky", "documents": ["red", "blue"]}, [0.0, 0.5]),
    ],
)
def test_pairs_are_scored_in_their_order(
    client: httpx.Client, path: str, body: dict[str, Any], expected: list[float]
) -> None:
    found = client.post(path, json={"model": "echo"} | body).json()
    assert [(item["index"], item["object"], item["score"]) for item in found["data"]] == [
        (index, "score", value) for index, value in enumerate(expected)
    ]
    assert (found["object"], found["model"]) == ("list", "echo")
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"text_1": "a"}, "text_2", "missing_required_parameter"),
        ({"text_2": "a"}, "text_1", "missing_required_parameter"),
        ({"queries": "a"}, "text_2", "missing_required_parameter"),
        ({"text_1": [], "text_2": "a"}, "text_1", "empty_input"),
        ({"text_1": "a", "text_2": []}, "text_2", "empty_input"),
        ({"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_2", "invalid_value"),
        ({"queries": ["a", "b", "c"], "documents": ["a", "b"]}, "documents", "invalid_value"),
        ({"text_1": "a", "text_2": ["a"] * (ITEMS + 1)}, "text_2", "array_above_max_length"),
        ({"text_1": "a", "text_2": ["a", "x" * 80_000]}, "text_2[1]", "input_too_long"),
        ({"text_1": ["a", "x" * 80_000], "text_2": "a"}, "text_1[1]", "input_too_long"),
        ({"text_1": "a", "text_2": "x" * 80_000}, "text_2", "input_too_long"),
        ({"text_1": "a", "text_2": 5}, "text_2", "invalid_value"),
    ],
)
def test_pairs_that_are_none_are_refused(client: httpx.Client, body: dict[str, Any], param: str, code: str) -> None:
    answer = client.post(SCORE, json={"model": "echo"} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_the_models_failure(value: float) -> None:
    good = Score(index=0, relevance=-3.5, tokens=1)
    rerank.check_finite("m", [good])
    with pytest.raises(BackendError, match="'m' gave"):
        rerank.check_finite("m", [good, Score(index=1, relevance=value, tokens=1)])
