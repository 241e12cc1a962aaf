"""The bench of the readers' tests, for every test here."""

from tests.reloaders.conftest import bench

__all__ = ["bench"]
