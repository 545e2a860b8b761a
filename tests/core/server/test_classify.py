"""POST /v1/classify over HTTP: texts, images in JSON and as files, and what is refused."""

import base64
from typing import Any

import httpx
import pytest

from live import Server, until
from yapit.schemas import ClassifyRequest
from yapit.server import classify
from yapit.server.calls import ITEMS

CLASSIFY = "/v1/classify"
GOOD = {"model": "echo", "input": "short"}
LONG = "a text of more than forty characters, which is long"
IMAGE = bytes(range(200))  # the echo model looks at the length alone
CODED = base64.b64encode(IMAGE).decode()


def labelled(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    answer = client.post(CLASSIFY, json=GOOD | body)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return data


def labels(client: httpx.Client, **body: Any) -> list[str]:
    return [item["label"] for item in labelled(client, **body)]


@pytest.mark.parametrize("path", ["/v1/classify", "/classify"])
def test_each_text_has_its_labels_best_first(client: httpx.Client, path: str) -> None:
    found = client.post(path, json={"model": "echo", "input": [LONG, "short"]}).json()
    assert (found["object"], found["model"]) == ("list", "echo")
    assert found["id"].startswith("classify-")
    assert set(found["usage"]) == {"prompt_tokens", "total_tokens"}
    assert found["data"] == [
        {"index": 0, "label": "long", "score": 0.9, "scores": [_score("long", 0.9), _score("short", 0.1)]},
        {"index": 1, "label": "short", "score": 0.9, "scores": [_score("short", 0.9), _score("long", 0.1)]},
    ]


def _score(label: str, score: float) -> dict[str, Any]:
    return {"label": label, "score": score}


@pytest.mark.parametrize(
    "given", ["short", ["short"], {"text": "short"}, [{"type": "text", "text": "short"}]], ids=repr
)
def test_a_text_may_be_alone_in_a_list_or_a_part(client: httpx.Client, given: Any) -> None:
    assert labels(client, input=given) == ["short"]


@pytest.mark.parametrize(
    "given",
    [
        {"image": CODED},
        {"image": f"data:image/png;base64,{CODED}"},
        {"image": "\r\n".join(CODED[at : at + 76] for at in range(0, len(CODED), 76))},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{CODED}"}},
        {"image_url": f"DATA:;base64,{CODED}"},
    ],
    ids=range(5),
)
def test_an_image_is_base64_or_a_data_url(client: httpx.Client, given: dict[str, Any]) -> None:
    assert labels(client, input=given) == ["long"]
    assert labels(client, input=[given, {"image": base64.b64encode(b"tiny").decode()}]) == ["long", "short"]


@pytest.mark.parametrize(("top_k", "count"), [(None, 3), (0, 3), (1, 1), (2, 2), (9, 3)])
def test_labels_are_the_clients_and_cut_to_the_best(client: httpx.Client, top_k: int | None, count: int) -> None:
    (found,) = labelled(client, labels=["sports", "art", "war"], top_k=top_k)
    assert (found["label"], found["score"]) == ("sports", 0.9)
    assert [item["label"] for item in found["scores"]] == ["sports", "art", "war"][:count]


def test_every_field_reaches_the_model() -> None:
    body = classify.ClassifyBody(
        model="m", input=["a"], labels=["x", "y"], multi_label=True, hypothesis_template="It is {}.", options={"a": 1}
    )
    assert classify.classify_request(body) == ClassifyRequest(
        texts=("a",), labels=("x", "y"), multi_label=True, hypothesis_template="It is {}.", options={"a": 1}
    )
    image = classify.ClassifyBody(model="m", input=classify.ClassifyItem(image=CODED))
    assert classify.classify_request(image) == ClassifyRequest(images=(IMAGE,))


def test_files_of_a_form_are_images(client: httpx.Client) -> None:
    files = [("file", ("a.png", IMAGE, "image/png")), ("file", ("b.png", b"tiny", "image/png"))]
    found = client.post(CLASSIFY, data={"model": "echo"}, files=files).json()
    assert [item["label"] for item in found["data"]] == ["long", "short"]
    found = client.post(CLASSIFY, data={"model": "echo"}, files={"image": IMAGE}).json()
    assert [item["label"] for item in found["data"]] == ["long"]


def test_a_form_has_the_same_fields_as_json(client: httpx.Client) -> None:
    fields = {"model": "echo", "labels": ["art", "war"], "top_k": "1", "multi_label": "true", "keep_alive": "10m"}
    fields |= {"options": '{"size": 224}', "hypothesis_template": "It is {}.", "unknown": "x"}
    found = client.post(CLASSIFY, data=fields, files={"file": IMAGE}).json()
    assert [item["scores"] for item in found["data"]] == [[_score("art", 0.9)]]
    found = client.post(CLASSIFY, data={"model": "echo", "labels": "one"}, files={"file": IMAGE}).json()
    assert [item["label"] for item in found["data"]] == ["one"]


def test_a_form_may_hold_texts(client: httpx.Client) -> None:
    parts: list[tuple[str, tuple[None, str]]] = [("model", (None, "echo"))]
    parts += [("input", (None, text)) for text in ("short", LONG)]
    found = client.post(CLASSIFY, files=parts).json()
    assert [item["label"] for item in found["data"]] == ["short", "long"]


def test_many_texts_are_answered_in_their_order(client: httpx.Client) -> None:
    texts = ["short" if number % 3 else LONG for number in range(300)]
    assert labels(client, input=texts) == ["short" if number % 3 else "long" for number in range(300)]


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"input": ""}, 400, "input", "empty_input"),
        ({"input": []}, 400, "input", "empty_input"),
        ({"input": ["a", ""]}, 400, "input[1]", "empty_input"),
        ({"input": ["a", {"text": ""}]}, 400, "input[1]", "empty_input"),
        ({"input": [{"image": CODED}, {"image": ""}]}, 400, "input[1]", "empty_input"),
        ({"input": None}, 400, "input", "invalid_value"),
        ({"input": 5}, 400, "input", "invalid_value"),
        ({"input": {}}, 400, "input", "invalid_value"),
        ({"input": ["a", {"type": "text"}]}, 400, "input[1]", "invalid_value"),
        ({"input": ["a", None]}, 400, "input[1]", "invalid_value"),
        ({"input": ["a", {"image": CODED}]}, 400, "input", "invalid_value"),
        ({"input": {"image": "no base64!"}}, 400, "input", "invalid_value"),
        ({"input": {"image": "é" * 8}}, 400, "input", "invalid_value"),
        ({"input": {"image": "data:image/png,rawbytes"}}, 400, "input", "invalid_value"),
        ({"input": [{"image": CODED}, {"image": CODED[:-2]}]}, 400, "input[1]", "invalid_value"),
        ({"input": {"image_url": {"url": 5}}}, 400, "input.image_url.url", "invalid_value"),
        ({"input": ["a"] * (ITEMS + 1)}, 400, "input", "array_above_max_length"),
        ({"input": "x" * 80_000}, 400, "input", "input_too_long"),
        ({"input": ["a", "x" * 80_000]}, 400, "input[1]", "input_too_long"),
        ({"labels": "art"}, 400, "labels", "invalid_value"),
        ({"labels": ["art", 5]}, 400, "labels[1]", "invalid_value"),
        ({"multi_label": "often"}, 400, "multi_label", "invalid_value"),
        ({"top_k": -1}, 400, "top_k", "invalid_value"),
        ({"keep_alive": "soon"}, 400, "keep_alive", "invalid_value"),
        ({"model": "ecko"}, 404, "model", "model_not_found"),
        ({"model": "deaf"}, 400, "model", "unsupported_task"),
    ],
)
def test_a_refused_value_is_named_as_the_client_named_it(
    client: httpx.Client, change: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = client.post(CLASSIFY, json=GOOD | change)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert param in error["message"] or param == "model"
    assert "texts[" not in error["message"]


@pytest.mark.parametrize("url", ["https://example.com/cat.png", "http://127.0.0.1/", "HTTPS://x"])
def test_images_from_elsewhere_are_refused_and_the_client_is_told(client: httpx.Client, url: str) -> None:
    for given in ({"image": url}, {"image_url": {"url": url}}):
        answer = client.post(CLASSIFY, json=GOOD | {"input": [given]})
        assert answer.status_code == 400
        assert "not fetched from elsewhere" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({}, {"file": IMAGE}, "model"),
        ({"model": "echo"}, {"nothing": (None, "x")}, "input"),
        ({"model": "echo"}, {"file": ("empty.png", b"")}, "input[0]"),
        ({"model": "echo", "input": "a"}, {"file": IMAGE}, "input"),
        ({"model": "echo", "options": "{"}, {"file": IMAGE}, "options"),
        ({"model": "echo", "options": "[]"}, {"file": IMAGE}, "options"),
        ({"model": "echo", "top_k": "many"}, {"file": IMAGE}, "top_k"),
    ],
)
def test_a_form_that_is_no_request_is_refused(
    client: httpx.Client, fields: dict[str, str], files: Any, param: str
) -> None:
    answer = client.post(CLASSIFY, data=fields, files=files)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_broken_form_is_refused(client: httpx.Client, kind: str) -> None:
    answer = client.post(CLASSIFY, content=b"nothing of the kind", headers={"content-type": kind})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_form_is_no_larger_than_a_body_may_be(client: httpx.Client) -> None:
    image = bytes(10 * 1024 * 1024)
    answer = client.post(CLASSIFY, data={"model": "echo"}, files={"file": image})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert client.post(CLASSIFY, data={"model": "echo"}, files={"file": image[:-10_000]}).status_code == 200


def test_forms_leave_no_file_open(server: Server, client: httpx.Client) -> None:
    def descriptors() -> int:
        from pathlib import Path

        return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))

    def post(model: str) -> None:
        client.post(CLASSIFY, data={"model": model}, files=[("file", bytes(2 * 1024 * 1024))] * 3)

    post("echo")
    before = descriptors()
    for model in ("echo", "deaf", "echo"):
        post(model)
    assert until(lambda: descriptors() <= before)


def test_a_client_that_leaves_frees_the_model(server: Server) -> None:
    before = server.events.count("client_left")
    with httpx.Client(base_url=server.url, timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post(CLASSIFY, json=GOOD | {"model": "pensive"})
    assert until(lambda: server.events.count("client_left") == before + 1)
    assert until(lambda: httpx.get(f"{server.url}/health").json()["running"] == 0)
