"""POST /v1/embeddings over HTTP: every form of input and output, what is refused, and that the client may leave."""

import base64
import math
import struct
from typing import Any

import httpx
import jsonschema
import msgspec
import numpy as np
import pytest

from live import Server, until
from yapit.catalog import Model
from yapit.errors import BackendError, CapacityError, InvalidInputError, RateLimitError
from yapit.schemas import Embedding, EmbedRequest
from yapit.server import embeddings
from yapit.server.calls import ITEMS
from yapit.server.problems import spelled

EMBEDDINGS = "/v1/embeddings"
GOOD = {"model": "echo", "input": "hello"}


def embedded(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(EMBEDDINGS, json=GOOD | body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def vectors(client: httpx.Client, **body: Any) -> list[Any]:
    data = embedded(client, **body)["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]


def test_the_response_is_openais(client: httpx.Client, openai_schema: dict[str, Any]) -> None:
    found = embedded(client, input=["one", "three"])
    schema = {"$ref": "#/components/schemas/CreateEmbeddingResponse", "components": openai_schema["components"]}
    jsonschema.validate(found, schema)
    assert set(found) == {"object", "data", "model", "usage"}
    assert found["model"] == "echo"
    assert found["usage"] == {"prompt_tokens": 8, "total_tokens": 8}  # the echo model's tokens are characters


def test_each_form_of_input_is_what_it_says(client: httpx.Client) -> None:
    (text,) = vectors(client, input="hello")
    (tokens,) = vectors(client, input=[1, 2, 3])
    assert text != tokens
    assert vectors(client, input=["hello"]) == [text]
    assert vectors(client, input=[[1, 2, 3]]) == [tokens]
    assert vectors(client, input=[[1, 2, 3], "hello", [3, 2, 1]])[:2] == [tokens, text]
    assert vectors(client, input=["1", "2", "3"]) != [tokens]


def test_data_comes_in_the_order_of_the_input_whatever_runs_together(client: httpx.Client) -> None:
    texts = [f"{number} " * (1 + number * 7 % 40) for number in range(200)]
    assert vectors(client, input=texts) == [vectors(client, input=text)[0] for text in texts]


def test_base64_is_the_same_numbers_as_float32(client: httpx.Client) -> None:
    floats = vectors(client, input=["a", "b"], encoding_format="float")
    coded = vectors(client, input=["a", "b"], encoding_format="base64")
    for numbers, text in zip(floats, coded, strict=True):
        raw = base64.b64decode(text, validate=True)
        assert raw == struct.pack("<16f", *numbers)
    assert vectors(client, input=["a", "b"], encoding_format=None) == floats


def test_dimensions_and_options_reach_the_model(client: httpx.Client) -> None:
    assert [len(vector) for vector in vectors(client, input=["a", "b"], dimensions=5)] == [5, 5]
    assert math.hypot(*vectors(client, dimensions=5)[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    "ignored",
    [
        {"user": "u"},
        {"user": 7, "unknown": {"field": [1]}, "priority": 3},
        dict.fromkeys(("encoding_format", "dimensions", "user", "input_type", "truncate", "options", "keep_alive")),
        {"input_type": "query", "truncate": True, "options": {"pooling": "cls"}, "keep_alive": "10m"},
    ],
)
def test_what_is_null_unknown_or_our_own_does_no_harm(client: httpx.Client, ignored: dict[str, Any]) -> None:
    assert vectors(client, **ignored) == vectors(client)


def test_the_unprefixed_route_and_an_alias_of_the_client(client: httpx.Client) -> None:
    assert client.post("/embeddings", json=GOOD).json() == client.post(EMBEDDINGS, json=GOOD).json()


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"input": ""}, 400, "input", "empty_input"),
        ({"input": []}, 400, "input", "empty_input"),
        ({"input": ["a", ""]}, 400, "input[1]", "empty_input"),
        ({"input": [[1], []]}, 400, "input[1]", "empty_input"),
        ({"input": [[]]}, 400, "input[0]", "empty_input"),
        ({"input": None}, 400, "input", "invalid_value"),
        ({"input": 5}, 400, "input", "invalid_value"),
        ({"input": {"text": "a"}}, 400, "input", "invalid_value"),
        ({"input": ["a", None]}, 400, "input[1]", "invalid_value"),
        ({"input": ["a", 5]}, 400, "input[1]", "invalid_value"),
        ({"input": [[1], 5]}, 400, "input[1]", "invalid_value"),
        ({"input": [5, -1]}, 400, "input", "invalid_value"),
        ({"input": [[5], [1, 2**31]]}, 400, "input[1]", "invalid_value"),
        ({"input": [2**80]}, 400, "input", "invalid_value"),
        ({"input": ["a"] * (ITEMS + 1)}, 400, "input", "array_above_max_length"),
        ({"input": "x" * 80_000}, 400, "input", "input_too_long"),
        ({"input": ["a", "b", "x" * 80_000]}, 400, "input[2]", "input_too_long"),
        ({"input": [1] * 20_000}, 400, "input", "input_too_long"),
        ({"encoding_format": "hex"}, 400, "encoding_format", "invalid_value"),
        ({"dimensions": 0}, 400, "dimensions", "invalid_value"),
        ({"dimensions": 10**12}, 400, "dimensions", "invalid_value"),
        ({"dimensions": "many"}, 400, "dimensions", "invalid_value"),
        ({"keep_alive": "soon"}, 400, "keep_alive", "invalid_value"),
        ({"model": "ecko"}, 404, "model", "model_not_found"),
        ({"model": "second"}, 400, "model", "unsupported_task"),
    ],
)
def test_a_refused_value_is_named_as_the_client_named_it(
    client: httpx.Client, change: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = client.post(EMBEDDINGS, json=GOOD | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert param in error["message"] or param == "model"
    assert "inputs" not in error["message"]


def test_as_many_as_are_allowed_are_embedded(client: httpx.Client) -> None:
    assert len(vectors(client, input=["a"] * ITEMS)) == ITEMS


def test_a_client_that_leaves_frees_the_model(server: Server) -> None:
    def running() -> int:
        return int(httpx.get(f"{server.url}/health").json()["running"])

    before = server.events.count("client_left")
    with httpx.Client(base_url=server.url, timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post(EMBEDDINGS, json=GOOD | {"model": "pensive"})
    assert until(lambda: server.events.count("client_left") == before + 1)
    assert until(lambda: running() == 0)


def test_every_field_reaches_the_model() -> None:
    body = embeddings.EmbeddingsBody(
        model="m", input=["a", [1, 2]], dimensions=3, input_type="query", truncate=True, options={"a": 1}
    )
    assert embeddings.embed_request(body) == EmbedRequest(
        inputs=("a", (1, 2)), dimensions=3, input_type="query", truncate=True, options={"a": 1}
    )


# ── numbers ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_float32_is_written_with_nine_digits_and_read_back() -> None:
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view("<f4")
    edges = np.array([0.0, -0.0, 1.0, 0.1, 1e-45, -1.17549435e-38, 3.4028235e38, -3.4028235e38], "<f4")
    tens = np.array([10.0**power for power in range(-40, 39)], "<f4")
    near = np.concatenate([np.nextafter(tens, np.float32(0)), np.nextafter(tens, np.float32(1e38))])
    vector = np.concatenate([bits[np.isfinite(bits)], edges, tens, near]).astype("<f4")
    written = embeddings.decimals(vector)
    assert (np.array(written).astype("<f4") == vector).all()
    usual = embeddings.decimals((rng.standard_normal(1000) / 32).astype("<f4"))
    assert max(len(msgspec.json.encode(abs(number)).lstrip(b"0.")) for number in usual) <= 9 + len("e-05")


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_never_reach_a_client(form: embeddings.EncodingFormat, value: float) -> None:
    bad = Embedding(index=0, vector=struct.pack("<2f", 1, value), tokens=1)
    with pytest.raises(BackendError, match="'m' gave"):
        embeddings._items(Model(id="m", backend="echo", tasks=("embed",)), [bad], form)


# ── spelling ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("param", "message", "expected"),
    [
        ("inputs[3]", "Invalid 'inputs[3]': long.", ("input[3]", "Invalid 'input[3]': long.")),
        ("inputs[3]", "inputs[3] is long.", ("input[3]", "input[3] is long.")),
        ("inputs[0]", "Invalid 'inputs[0]': long.", ("text", "Invalid 'text': long.")),
        ("inputs", "Invalid 'inputs': the inputs are many.", ("input", "Invalid 'input': the inputs are many.")),
        ("inputs_2", "Invalid 'inputs_2'.", ("inputs_2", "Invalid 'inputs_2'.")),
        ("dimensions", "Invalid 'dimensions' of inputs[3].", ("dimensions", "Invalid 'dimensions' of inputs[3].")),
        (None, "All inputs failed.", (None, "All inputs failed.")),
    ],
)
def test_errors_name_fields_as_the_client_does(
    param: str | None, message: str, expected: tuple[str | None, str]
) -> None:
    with pytest.raises(InvalidInputError) as caught, spelled({"inputs": "input", "inputs[0]": "text"}):
        raise InvalidInputError(message, param=param, code="input_too_long")
    assert (caught.value.param, caught.value.message) == expected
    assert str(caught.value) == caught.value.message
    assert caught.value.code == "input_too_long"


def test_a_respelled_error_is_a_copy_with_all_that_it_had() -> None:
    class PluginsError(RateLimitError):
        def __init__(self, quota: int, *, unit: str) -> None:
            super().__init__(f"Invalid 'inputs': {quota} {unit}.", param="inputs", retry_after_s=5)
            self.quota = quota

    shared = PluginsError(3, unit="a day")
    with pytest.raises(PluginsError) as caught, spelled({"inputs": "input"}):
        raise shared
    assert (shared.param, caught.value.param) == ("inputs", "input")
    assert (caught.value.quota, caught.value.retry_after_s, caught.value.status) == (3, 5, 429)
    assert caught.value.message == "Invalid 'input': 3 a day."


def test_other_errors_pass_as_they_are() -> None:
    other = CapacityError("full")
    with pytest.raises(CapacityError) as caught, spelled({"inputs": "input"}):
        raise other
    assert caught.value is other
    with pytest.raises(KeyError), spelled({}):
        raise KeyError
