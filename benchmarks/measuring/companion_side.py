"""The companion's half of `companions`: standard library only, for any environment."""

import json
import sys
from collections.abc import Callable
from typing import Any

Answers = Callable[..., dict[str, Any]]
"""Takes a question's fields by their names."""


def answering(answers: Answers) -> None:
    """Answer every line of stdin with one of stdout, until there are no more.

    What the program itself prints meanwhile goes to stderr: stdout is for answers.
    """
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        out.write(json.dumps(answers(**json.loads(line))) + "\n")
        out.flush()
