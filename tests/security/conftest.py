"""Fixtures of the tests that attack an installation."""

from tests.rebuilder.conftest import make_bench

__all__ = ["make_bench"]
