"""Writes the rules for Prometheus, from the definition by which the operator decides itself.

Usage: ``python -m scripts.prometheus_rules PAGE [--check]``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import sys

from indexrelay.operations.alerts import prometheus_rules
from indexrelay.schemas.monitoring import AlertSettings
from scripts.pages import write_or_check


def main() -> int:
    """Write the file, or compare it with ``--check``."""
    return write_or_check(
        "prometheus_rules",
        lambda: prometheus_rules(AlertSettings()),
        described="Write the alerts of indexrelay as rules for Prometheus.",
        of="the definition of the alerts says",
    )


if __name__ == "__main__":
    sys.exit(main())
