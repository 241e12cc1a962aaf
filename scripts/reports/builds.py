"""Section D, as far as it is about queries and settings: 15 and 19."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from typing import Any

import numpy as np

from indexrelay.components.served import checked_k
from indexrelay.console.commands.check import trial_notes
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings
from scripts.reports.report import Attempt, reports


def index(factory: str, dimension: int) -> Attempt:
    """What ``check`` says of a named index."""
    table = {"kind": "vector_index", "from": "tracks", "index": factory}
    tables = {"collections": {"tracks": {"dimension": dimension}}, "components": {"similar": table}}
    return lambda _: trial_notes(Settings.model_validate(tables))


def redis(url: str) -> Attempt:
    """What ``check`` says of the URL of a server."""
    return lambda _: trial_notes(Settings.model_validate({"redis": {"url": url}}))


def tables(**given: Any) -> Attempt:
    """What is said of tables of the settings."""
    return lambda _: check_settings(given, origin="report")


CERT_NONE = "rediss://localhost?ssl_cert_reqs=CERT_NONE"
TRUTH = {"tracks": {"dimension": True}}
REPORTS = (
    *reports(
        "D15",
        ("k=numpy.int64(1)", "1$", lambda _: checked_k(np.int64(1))),
        ("k=True", "InvalidQueryError: k is a whole number", lambda _: checked_k(True)),
    ),
    *reports(
        "D19",
        ("IVF64,PQ16 of ten dimensions", "cannot make IVF64,PQ16", index("IVF64,PQ16", 10)),
        ("dimension = true", "'true': must be a whole number", tables(collections=TRUTH)),
        ("a long quiet", "at least quiet_seconds", tables(rebuilder={"quiet_seconds": 10})),
        ("ssl_cert_reqs=CERT_NONE", r"redis.url = \(hidden\)", redis(CERT_NONE)),
        says="SettingsError: .*",
    ),
)
