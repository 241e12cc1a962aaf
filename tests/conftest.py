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
