import subprocess
import sys

import pytest

import indexrelay.storage


@pytest.mark.parametrize("name", indexrelay.storage.__all__)
def test_a_public_name_is_there_when_it_is_asked_for(name: str) -> None:
    assert getattr(indexrelay.storage, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'indexrelay\.storage' has no attribute 'Catalogue'"):
        _ = indexrelay.storage.Catalogue  # type: ignore[attr-defined] # that is the point


def test_artifacts_are_had_without_sqlalchemy() -> None:
    program = """
import sys
from indexrelay.storage import ArtifactStore
print("sqlalchemy" in sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"
