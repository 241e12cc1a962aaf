"""Fixtures that every room's tests may use."""

from tests.fixtures.machine import keep_files_in_memory, let_waiting_threads_sleep

pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.postgresql", "tests.fixtures.acl"]

keep_files_in_memory()
let_waiting_threads_sleep()
