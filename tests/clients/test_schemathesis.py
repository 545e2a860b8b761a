"""What our own OpenAPI document promises, tried with whatever it allows and does not allow."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance, response_schema_conformance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from live import Server

# Speech comes in events too, whose schema is the documentation's alone.
SPEECH = ("/v1/audio/speech", "/v1/audio/speech/timestamps")
ENDLESS = ("/models/events", "/api/models/events")
IN_ONE_PIECE = ("/v1/embeddings", "/v1/rerank", "/v1/score", "/v1/classify")
WRITING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


@pytest.fixture(scope="session")
def schema(server: Server) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{server.url}/schema")


def run(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_operation_answers_as_documented(schema: OpenApiSchema, mode: GenerationMode) -> None:
    tried = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path in ENDLESS:
            continue
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # a string in a URL is always a string

        @run(25)
        @given(case=operation.as_strategy(generation_mode=mode))
        def answer(case: Any) -> None:
            # That a text may be blank or longer than a setting allows is beyond a schema.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        answer()
        tried += 1
    assert tried >= 4


@pytest.mark.parametrize("mode", GenerationMode)
def test_a_model_that_is_there_never_fails(schema: OpenApiSchema, mode: GenerationMode) -> None:
    for path in (*SPEECH, *WRITING, *IN_ONE_PIECE):
        checks = [not_a_server_error, *([response_schema_conformance] if path not in SPEECH else [])]

        @run(60)
        @given(case=schema[path]["POST"].as_strategy(generation_mode=mode))
        def answer(case: Any) -> None:
            if isinstance(case.body, dict):
                case.body["model"] = "echo"
            case.call_and_validate(checks=checks)

        answer()


def test_the_server_goes_on(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").json()["running"] == 0
