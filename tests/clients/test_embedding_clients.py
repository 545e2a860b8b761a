"""OpenAI's clients, LangChain and LiteLLM embed, and all of them get the same numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import litellm
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings

from live import Server

TEXTS = ["one", "two", "three"]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture
def strict(server: Server) -> Iterator[openai.OpenAI]:
    """One that refuses what does not match its models, as base64 does not: it checks before it decodes."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(server: Server) -> list[list[float]]:
    """What the server answers to a client that reads JSON alone."""
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"model": "echo", "input": TEXTS})
    return [item["embedding"] for item in answer.json()["data"]]


def near(expected: list[list[float]]) -> Any:
    return [pytest.approx(vector, abs=1e-8) for vector in expected]


def test_openais_python_client_decodes_base64_by_default(client: openai.OpenAI, expected: list[list[float]]) -> None:
    with_raw = client.embeddings.with_raw_response.create(model="echo", input=TEXTS)
    assert b'"embedding":"' in with_raw.content
    answer = with_raw.parse()
    assert [item.embedding for item in answer.data] == near(expected)
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("echo", 11, 11)


def test_openais_python_client_is_strict_about_floats(strict: openai.OpenAI, expected: list[list[float]]) -> None:
    answer = strict.embeddings.create(model="echo", input=TEXTS, encoding_format="float", user="u")
    assert [item.embedding for item in answer.data] == expected
    one = strict.embeddings.create(model="echo", input="one", encoding_format="float", dimensions=3)
    assert len(one.data[0].embedding) == 3


def test_openais_python_client_sends_tokens(client: openai.OpenAI) -> None:
    lists = client.embeddings.create(model="echo", input=[[1, 2, 3], [4]]).data
    (flat,) = client.embeddings.create(model="echo", input=[1, 2, 3]).data
    assert flat.embedding == lists[0].embedding != lists[1].embedding


def test_openais_python_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as empty:
        client.embeddings.create(model="echo", input=["one", ""])
    assert (empty.value.param, empty.value.code) == ("input[1]", "empty_input")
    with pytest.raises(openai.BadRequestError) as speaks:
        client.embeddings.create(model="espeak", input="one")
    assert speaks.value.code == "unsupported_task"


def test_the_node_client_gets_the_same_numbers(
    server: Server, expected: list[list[float]], node: Callable[..., Any]
) -> None:
    """It decodes whatever comes as base64 where it has asked for nothing."""
    seen = node("embeddings.mjs", f"{server.url}/v1")
    assert seen["usual"] == near(expected)
    assert seen["floats"] == expected
    assert [len(vector) for vector in seen["tokens"]] == [5, 5]
    assert seen["usage"] == {"prompt_tokens": 11, "total_tokens": 11}
    assert seen["error"] == {"kind": "BadRequestError", "status": 400, "code": "empty_input", "param": "input[1]"}


@pytest.fixture
def connected(server: Server) -> Iterator[dict[str, Any]]:
    """What LangChain's class is made with; the transport is closed here, since it has no way to be closed."""
    with httpx.Client() as transport:
        yield {"model": "echo", "base_url": f"{server.url}/v1", "api_key": "unused", "http_client": transport}


def test_langchain_embeds_texts_where_it_is_told_not_to_count_tokens(
    connected: dict[str, Any], expected: list[list[float]]
) -> None:
    embedder = OpenAIEmbeddings(**connected, check_embedding_ctx_length=False)
    assert embedder.embed_documents(TEXTS) == near(expected)
    assert embedder.embed_query("two") == near(expected)[1]


def test_langchain_sends_tokens_of_openais_where_it_is_not_told(
    connected: dict[str, Any], client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the model gets numbers that are not its own: the documentation says what to switch off."""
    # OpenAI's real tokens would be downloaded; these are the bytes of the text.
    encoding = tiktoken.Encoding(
        "bytes", pat_str=r"\S+|\s+", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: encoding)
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: encoding)
    found = OpenAIEmbeddings(**connected).embed_documents(["one", "two"])
    tokens = client.embeddings.create(model="echo", input=[list(b"one"), list(b"two")]).data
    assert found == [pytest.approx(item.embedding, abs=1e-6) for item in tokens]


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm_embeds(server: Server, expected: list[list[float]], provider: str) -> None:
    answer = litellm.embedding(
        f"{provider}/echo", input=TEXTS, api_base=f"{server.url}/v1", api_key="unused", timeout=20
    )
    assert [item["embedding"] for item in answer.data] == expected
    assert answer.usage
    assert answer.usage.total_tokens == 11
