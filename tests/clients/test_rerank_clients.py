"""Cohere's client and LiteLLM rank with the echo model, which scores a document by the words it shares."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import litellm
import pytest
from cohere.errors import BadRequestError, NotFoundError

from live import Server, serve

QUERY = "blue sky"
DOCUMENTS = ["red", "blue sky", "blue"]
BEST = [(1, 1.0), (2, 0.5), (0, 0.0)]


@pytest.fixture
def transport() -> Iterator[httpx.Client]:
    with httpx.Client() as opened:
        yield opened


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (2, 2), (9, 3)])
def test_coheres_second_client(server: Server, transport: httpx.Client, top_n: int | None, count: int) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=server.url, httpx_client=transport)
    answer = client.rerank(model="echo", query=QUERY, documents=DOCUMENTS, top_n=top_n, max_tokens_per_doc=100)
    assert [(item.index, item.relevance_score) for item in answer.results] == BEST[:count]
    assert answer.id
    assert answer.meta
    assert answer.meta.billed_units
    assert answer.meta.billed_units.search_units == 1
    assert answer.meta.tokens
    assert answer.meta.tokens.input_tokens == 4


def test_coheres_first_client_gets_the_documents_back(server: Server, transport: httpx.Client) -> None:
    client = cohere.Client(api_key="unused", base_url=server.url, httpx_client=transport)
    documents: list[Any] = ["red", {"text": "blue sky"}, "blue"]
    answer = client.rerank(model="echo", query=QUERY, documents=documents, return_documents=True)
    assert [(item.index, item.relevance_score) for item in answer.results] == BEST
    assert [item.document and item.document.text for item in answer.results] == ["blue sky", "blue", "red"]
    fields: list[Any] = [{"title": "red"}, {"title": "blue", "body": "sky"}]
    answer = client.rerank(
        model="echo", query=QUERY, documents=fields, rank_fields=["title", "body"], return_documents=True
    )
    assert [(item.index, item.relevance_score) for item in answer.results] == [(1, 1.0), (0, 0.0)]


def test_coheres_client_raises_its_own_errors(server: Server, transport: httpx.Client) -> None:
    client = cohere.ClientV2(api_key="unused", base_url=server.url, httpx_client=transport)
    with pytest.raises(BadRequestError, match="Invalid 'query'"):
        client.rerank(model="echo", query="", documents=DOCUMENTS)
    with pytest.raises(NotFoundError, match="ecko"):
        client.rerank(model="ecko", query=QUERY, documents=DOCUMENTS)


def ranked(provider: str, base: str, **more: Any) -> list[dict[str, Any]]:
    answer = litellm.rerank(
        model=f"{provider}/echo", query=QUERY, documents=DOCUMENTS, api_base=base, api_key="unused", **more
    )
    results: list[dict[str, Any]] = answer.results
    return results


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("hosted_vllm", ""),
        ("hosted_vllm", "/v1/rerank"),
        ("cohere", ""),
        ("jina_ai", ""),
        ("jina_ai", "/v1"),
        ("infinity", "/infinity"),
    ],
)
def test_litellm_ranks_and_gets_the_documents_back(server: Server, provider: str, path: str) -> None:
    found = ranked(provider, server.url + path, top_n=2)
    assert [(item["index"], item["relevance_score"]) for item in found] == BEST[:2]
    assert [item["document"]["text"] for item in found] == ["blue sky", "blue"]


def test_litellm_as_a_client_of_tei_names_no_model(tmp_path: Path) -> None:
    with serve(tmp_path, YAPIT_MODELS="echo") as one:
        found = ranked("huggingface", one.url)
    assert [(item["index"], item["relevance_score"]) for item in found] == BEST
