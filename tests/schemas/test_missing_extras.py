"""What is optional and not installed is named with the extra that brings it."""

import subprocess
import sys

import pytest

CASES = {
    "flask": ("import indexrelay.reloaders.flask", "flask"),
    "fastapi": ("import indexrelay.reloaders.fastapi", "service"),
    "uvicorn": ("import indexrelay.reloaders.service", "service"),
    "pytest": ("import indexrelay.testing.plugin", "testing"),
    "faiss": (
        "from indexrelay.components.optional import require_faiss; require_faiss()",
        "reloaders",
    ),
    "sklearn": (
        "from indexrelay.components.optional import require\nrequire('sklearn', extra='rebuilder')",
        "rebuilder",
    ),
    "psycopg": (
        "from indexrelay.storage.catalog import Catalog; Catalog.open('postgresql://h/d')",
        "postgresql",
    ),
}
"""By the module that is blocked: what needs it, and the extra."""


@pytest.mark.parametrize("module", CASES)
def test_a_module_that_is_missing_is_named_with_its_extra(module: str) -> None:
    code, extra = CASES[module]
    blocked = f"import sys; sys.modules[{module!r}] = None\n{code}"
    ended = subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60, check=False
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert "MissingExtraError" in last, ended.stderr
    assert f"pip install 'indexrelay[{extra}]'" in last
