"""What a crowd wrote beside what an instance answers: all that is not alike is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexrelay.schemas.settings import Settings
from indexrelay.service.app import create_app
from indexrelay.testing import Pipeline
from measuring.crowd import COLLECTION, COMPONENT, DIMENSION, Model, Written, differences
from tests.service.app_server import running

ENTRIES = {f"e{number}": Written(number, number, 1, number) for number in range(60)}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a service that serves the entries."""
    folder: Path = tmp_path_factory.mktemp("model")
    declared = {"dimension": DIMENSION, "metric": "l2", "filterable": {"client": "number"}}
    kind = {"kind": "search", "from": COLLECTION, "vector": {"index": "Flat"}}
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "collections": {COLLECTION: declared},
            "components": {COMPONENT: kind},
        }
    )
    pipeline = Pipeline(settings, folder)
    model = Model(ENTRIES)
    payloads = [each.payload for each in model.entries.values()]
    with pipeline.producer.batch(COLLECTION) as batch:
        batch.upsert(model.ids, model.vectors, texts=model.texts, payloads=payloads)
    pipeline.rebuild()
    reader = pipeline.reader("web")
    reader.step()
    with running(create_app(reader)) as client:
        yield str(client.base_url)
    pipeline.close()


def test_a_service_that_has_all_answers_as_its_model_does(address: str) -> None:
    assert list(differences(Model(ENTRIES), address, released=True)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lost": Written(70, 70, 1, 70)}, "lost is lost"),
        ({"e7": Written(7, 7, 1, 71)}, "e7 is ({'client': 1, 'mark': 7}, "),
        ({"e7": Written(7, 71, 1, 7)}, "e7 is not found by its own text"),
        ({"e7": Written(71, 7, 1, 7)}, "e7 is not found by its own vector"),
        ({"e7": Written(71, 7, 1, 7)}, "a vector finds {"),
        ({f"e{each}": Written(each, 0, 1, each) for each in range(60)}, ", and the model {}"),
        ({"e7": None}, "e7 is there, and nobody wrote it"),
    ],
)
def test_what_is_not_alike_is_named(
    address: str, changed: dict[str, Written | None], said: str
) -> None:
    entries = {name: each for name, each in (ENTRIES | changed).items() if each is not None}
    assert any(said in each for each in differences(Model(entries), address, released=True))
