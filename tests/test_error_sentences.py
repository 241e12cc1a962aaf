"""Every error of ours says when it is raised; nobody has to guess what a name means."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

from indexrelay.schemas.errors import IndexRelayError
from tests.test_house import PORTIONS

ROOTS = {"IndexRelayError", "ArtifactError"}


def modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        yield from modules(module) if found.ispkg else [module]


@pytest.mark.parametrize("portion", PORTIONS)
def test_every_error_of_a_portion_says_when_it_is_raised(portion: str) -> None:
    classes = {
        value
        for module in modules(importlib.import_module(f"indexrelay.{portion}"))
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__ == module.__name__
    }
    strangers = [each.__qualname__ for each in classes if not issubclass(each, IndexRelayError)]
    assert strangers == [], "every error of ours derives from IndexRelayError"
    silent = [
        each.__qualname__
        for each in classes
        if each.__name__ not in ROOTS and not (each.__doc__ or "").startswith("Raised ")
    ]
    assert silent == []
