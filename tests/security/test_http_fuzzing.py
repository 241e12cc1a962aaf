"""Everything that the OpenAPI document allows, and what it does not, asked of a real process.

No answer is a fault of the server; each has a status, a content type and a shape that the document
names; what the document does not allow is refused. Where there are tokens, the same is refused to
whoever shows none, or a wrong one. For how long, `tests.security.fuzzing` says.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis import checks as known
from schemathesis.specs.openapi import checks as documented

from indexrelay.service.tokens import OPEN_PATHS, digest_of, new_token
from indexrelay.testing import Pipeline
from tests.security.fuzzing import MINUTES, seeds
from tests.security.reader_service import DIMENSION, Installation, Service, settings_in

TOKENS: dict[str, dict[str, Any]] = {
    "reads": {"scope": "read"},
    "changes": {"scope": "admin"},
    "tenant": {"scope": "write", "filter": {"tenant": "shop"}},
}
SHOWN = {name: new_token() for name in TOKENS}
EXPECTED = {
    "nobody": {202, 404},
    "reads": {403, 404},
    "changes": {202, 404},
    "tenant": {403, 404},
}
"""Statuses beside 200 and 422, by whose token is shown."""
CHECKS = [
    known.not_a_server_error,
    documented.status_code_conformance,
    documented.content_type_conformance,
    documented.response_schema_conformance,
    documented.response_headers_conformance,
    documented.negative_data_rejection,
    documented.unsupported_method,
]
NAMES = ["similar", "words"]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One of its own: what is written to it is nothing for other tests. It is live, so that what
    was written is in the answers, too, where one has to be as fresh as that."""
    folder = tmp_path_factory.mktemp("fuzzed")
    declared = settings_in(folder).model_dump(mode="json", exclude_defaults=True)
    collections = {"tracks": {**declared["collections"]["tracks"], "live": True}}
    made = Installation(folder, Pipeline(settings_in(folder, collections=collections), folder))
    made.release(100, payload_bytes=1000)
    yield made
    made.pipeline.close()


@pytest.fixture(scope="module", params=EXPECTED)
def service(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Without tokens, and with one of each kind."""
    shown = None if request.param == "nobody" else SHOWN[request.param]
    tokens = {
        name: {"sha256": digest_of(SHOWN[name]), **token}
        for name, token in TOKENS.items()
        if shown is not None
    }
    http = {"tokens": tokens, "fresh_seconds": 0.01, "writes": True}
    with installation.serving(http=http, token=shown) as service:
        yield service


def document(service: Service, mode: GenerationMode) -> dict[str, Any]:
    """The service's own description, of the components that there are.

    What is to be answered is of vectors and ids that there are. What is to be refused is not: a
    search of a batch that finds no such entry has a problem in its place, and the batch has none.
    """
    described: dict[str, Any] = json.loads(service.ask("GET /openapi.json")[1])
    for operations in described["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "name":
                    parameter["schema"] = {"type": "string", "enum": NAMES}
                if parameter["name"] == "collection":
                    parameter["schema"] = {"type": "string", "enum": ["tracks"]}
            operation["parameters"] = [
                # Options in the address are for bodies of float32 values.
                each
                for each in operation.get("parameters", ())
                if each["in"] != "query" or operation.get("requestBody") is None
            ]
    describe_writes(described["components"]["schemas"], mode)
    arms = described["components"]["schemas"]["SearchRequest"]["oneOf"]
    for arm in arms if mode is GenerationMode.POSITIVE else ():
        asked = arm["properties"]
        if asked["vector"]["type"] == "array":
            asked["vector"] |= {"minItems": DIMENSION, "maxItems": DIMENSION}
        if asked["id"]["type"] == "string":
            asked["id"] = {"type": "string", "enum": ["track-0-1", "track-0-2", "none"]}
    return described


def describe_writes(schemas: dict[str, Any], mode: GenerationMode) -> None:
    """Writes that are answered at once, and may have vectors of the collection's dimension."""
    for write in ("UpsertRequest", "DeleteRequest", "PatchRequest"):
        schemas[write]["properties"]["wait"] = {"type": "string", "enum": ["durable"]}
    if mode is GenerationMode.POSITIVE:
        [vector, _] = schemas["WrittenEntry"]["properties"]["vector"]["anyOf"]
        vector |= {"minItems": DIMENSION, "maxItems": DIMENSION}


def operations_of(service: Service, mode: GenerationMode) -> list[Any]:
    """What the description offers."""
    schema = schemathesis.openapi.from_dict(document(service, mode))
    return [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]


@pytest.mark.timeout(120 + 90 * MINUTES)
def test_whatever_is_asked_is_answered_as_the_document_says(
    service: Service, request: pytest.FixtureRequest
) -> None:
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    operations = [(mode, each) for mode in modes for each in operations_of(service, mode)]
    assert len(operations) >= 2 * 17
    seen: Counter[int] = Counter()
    shown = {} if service.token is None else {"authorization": f"Bearer {service.token}"}
    url = f"http://127.0.0.1:{service.port}"

    examples = 20 if shown else 40

    def ask(operation: Any, mode: GenerationMode, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=examples if "search" in operation.path else examples // 4,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def once(case: Any) -> None:
            case.headers = {**(case.headers or {}), **shown}
            answer = case.call(base_url=url, timeout=20)
            # Who asks for more than is released is refused, and is told how far it is.
            is_behind = answer.status_code == 503 and bool(answer.json()["behind"])
            # That a body is too long refuses it, whatever it holds; not by schemathesis' list.
            passed_over: dict[Any, bool] = {
                known.not_a_server_error: is_behind,
                documented.negative_data_rejection: answer.status_code == 413,
            }
            checks = [each for each in CHECKS if not passed_over.get(each)]
            case.validate_response(answer, checks=checks)
            seen[answer.status_code] += 1
            if answer.status_code >= 400:
                assert len(answer.content) < 8_000
            if service.token == SHOWN["tenant"]:
                assert '"tenant":"bank"' not in answer.text
            if shown and operation.path not in OPEN_PATHS:
                for given in ({}, {"authorization": f"Bearer {new_token()}"}):
                    case.headers = given
                    refused = case.call(base_url=url, timeout=20)
                    assert refused.status_code == 401
                    assert refused.headers["www-authenticate"][0].startswith("Bearer ")

        once()

    for number in seeds(1):
        for mode, operation in operations:
            # Of names and headers every text is allowed.
            if mode is GenerationMode.POSITIVE or operation.body:
                ask(operation, mode, number)
    assert seen.keys() >= {200, 422, *(EXPECTED[request.node.callspec.params["service"]])}, seen
    assert service.process.poll() is None
    logged = service.log.read_text()
    assert "request.failed" not in logged
    assert "write.failed" not in logged
    assert service.token is None or service.token not in logged
