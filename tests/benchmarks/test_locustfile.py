"""What the crowd of Locust counts as an error; in a process of its own, which gevent changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from measuring.companions import BENCHMARKS

VISITING = """
import sys
from locust.env import Environment
sys.path.insert(0, sys.argv[1])
import locustfile

class Options:
    record = sys.argv[2]

environment = Environment(user_classes=[locustfile.Visitor], parsed_options=Options())
environment.create_local_runner()
try:
    raise TypeError("nobody thought of it")
except TypeError as error:
    environment.events.user_error.fire(
        user_instance=None, exception=error, tb=error.__traceback__
    )
locustfile._record(environment)
"""


def test_an_exception_that_no_client_expects_is_an_error_of_the_crowd(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    subprocess.run(
        [sys.executable, "-c", VISITING, str(BENCHMARKS / "companions"), str(record)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
    )
    (error,) = json.loads(record.read_bytes())["errors"]
    assert error.startswith("1 times nobody thought of it, which no client expects")
