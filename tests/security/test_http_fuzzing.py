"""Everything that the OpenAPI document allows, and what it does not, asked of a real process.

No answer is a fault of the server; each has a status, a content type and a shape that the document
names; what the document does not allow is refused. For how long, `tests.security.fuzzing` says.
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

from tests.security.fuzzing import MINUTES, seeds
from tests.security.reader_service import DIMENSION, Installation, Service

EXAMPLES = 10
OF_SEARCHES = 60
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
def service(installation: Installation) -> Iterator[Service]:
    with installation.serving() as service:
        yield service


def document(service: Service) -> dict[str, Any]:
    """The service's own description, in which searches are of what it has."""
    described: dict[str, Any] = json.loads(service.ask("GET /openapi.json")[1])
    search = described["paths"]["/components/{name}/search"]["post"]
    for parameter in search["parameters"]:
        parameter["schema"] = {"type": "string", "enum": NAMES}
    for arm in described["components"]["schemas"]["SearchRequest"]["oneOf"]:
        asked = arm["properties"]
        if asked["vector"]["type"] == "array":
            asked["vector"] |= {"minItems": DIMENSION, "maxItems": DIMENSION}
        if asked["id"]["type"] == "string":
            asked["id"] = {"type": "string", "enum": ["track-0-1", "track-0-2", "none"]}
    return described


@pytest.mark.timeout(120 + 90 * MINUTES)
def test_whatever_is_asked_is_answered_as_the_document_says(service: Service) -> None:
    schema = schemathesis.openapi.from_dict(document(service))
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    assert len(operations) >= 7
    seen: Counter[int] = Counter()

    def ask(operation: Any, mode: GenerationMode, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=OF_SEARCHES if operation.body else EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def once(case: Any) -> None:
            answer = case.call(base_url=f"http://127.0.0.1:{service.port}", timeout=20)
            case.validate_response(answer, checks=CHECKS)
            seen[answer.status_code] += 1
            if answer.status_code >= 400:
                assert len(answer.content) < 8_000

        once()

    for number in seeds(1):
        for operation in operations:
            ask(operation, GenerationMode.POSITIVE, number)
            if operation.body:  # of names and headers every text is allowed
                ask(operation, GenerationMode.NEGATIVE, number)
    assert min(seen[status] for status in (200, 202, 404, 422)) > 0, seen
    assert service.process.poll() is None
    assert not [line for line in service.log.read_text().splitlines() if "request.failed" in line]
