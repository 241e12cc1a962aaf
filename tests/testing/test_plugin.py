"""The plugin as pytest sees it."""

import subprocess
import sys


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    heavy = ["faiss", "fakeredis", "numpy", "pydantic", "redis", "sklearn", "sqlalchemy"]
    program = (
        "import sys, indexrelay.testing.plugin, indexrelay.testing; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported() -> None:
    import indexrelay.testing as portion

    assert portion.__all__ == sorted(portion.__all__)
    for name in portion.__all__:
        assert getattr(portion, name).__name__ == name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import indexrelay.testing as portion

    assert not hasattr(portion, "NoSuchName")
