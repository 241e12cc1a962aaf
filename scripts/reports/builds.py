"""Section D, as far as it is about builds, kinds and settings: 15 and 19."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

from typing import Any

import numpy as np

from indexrelay.components.hits import checked_k
from indexrelay.console.trials import tried
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import check_settings
from scripts.reports.report import Report


def check_index(index: str, dimension: int) -> Any:
    """What ``check`` says of a named index."""
    table = {"kind": "vector_index", "from": "tracks", "index": index}
    collections = {"tracks": {"dimension": dimension}}
    return tried(
        Settings.model_validate({"collections": collections, "components": {"similar": table}})
    )


REPORTS = (
    Report(
        item="D15", tried="k=numpy.int64(1)", wanted=r"1$", attempt=lambda _: checked_k(np.int64(1))
    ),
    Report(
        item="D15",
        tried="k=True",
        wanted=r"InvalidQueryError: k is a whole number and at least 1",
        attempt=lambda _: checked_k(True),
    ),
    Report(
        item="D19",
        tried="IVF64,PQ16 of ten dimensions",
        wanted=r"SettingsError: .*cannot make IVF64,PQ16 of vectors of length 10",
        attempt=lambda _: check_index("IVF64,PQ16", 10),
    ),
    Report(
        item="D19",
        tried="dimension = true",
        wanted=r"SettingsError: .*collections.tracks.dimension = 'true': must be a whole number",
        attempt=lambda _: check_settings(
            {"collections": {"tracks": {"dimension": True}}}, origin="report"
        ),
    ),
    Report(
        item="D19",
        tried="quiet_seconds above max_delay_seconds",
        wanted=r"SettingsError: .*must be at least quiet_seconds",
        attempt=lambda _: check_settings({"rebuilder": {"quiet_seconds": 10}}, origin="report"),
    ),
    Report(
        item="D19",
        tried="rediss:// with ssl_cert_reqs=CERT_NONE",
        wanted=r"SettingsError: .*redis.url = '\(hidden\)'",
        attempt=lambda _: tried(
            Settings.model_validate(
                {"redis": {"url": "rediss://localhost?ssl_cert_reqs=CERT_NONE"}}
            )
        ),
    ),
)
