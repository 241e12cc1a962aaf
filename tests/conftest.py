"""Fixtures that every room's tests may use."""

import pytest

from tests.fixtures import machine

pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.postgresql", "tests.fixtures.acl"]

machine.keep_bytecode()
machine.keep_files_in_memory()
machine.let_waiting_threads_sleep()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, which mostly wait: the last minutes are of tests that are short."""
    items.sort(key=lambda item: "/faults/" not in item.nodeid)


def pytest_collection_finish() -> None:
    machine.spare_the_garbage_collector_the_tests()


_MODULES_BETWEEN = 20
_modules = 0


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Do it again now and then: what fixtures and caches hold had grown to 0.7 s a collection."""
    global _modules  # noqa: PLW0603 - of the process, as the collector is
    if nextitem is None or nextitem.path != item.path:
        _modules += 1
        if _modules % _MODULES_BETWEEN == 0:
            machine.spare_the_garbage_collector_the_tests()
