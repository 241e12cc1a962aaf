"""A reader in a process of its own: ``python -m tests.behaviour.reader_process CONFIG ID``.

Reads one JSON question a line on standard input, answers a line, and ends with its input.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.reloaders import Reloader
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings_file import load_settings


def main() -> None:
    settings = load_settings(Path(sys.argv[1]), environ={})
    configure_logs(settings.log)  # to stderr: standard output is for answers
    reloader = Reloader(settings, reader_id=sys.argv[2])
    reloader.start()
    try:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(answer(reloader, json.loads(line))) + "\n")
            sys.stdout.flush()
    finally:
        reloader.stop()


def answer(reloader: Reloader, question: dict[str, Any]) -> dict[str, Any]:
    with reloader.acquire() as snapshot:
        served = snapshot[question["component"]]
        if "every" in question:
            return {"release": snapshot.release, "ids": list(getattr(served, question["every"]))}
        if "vector" in question:
            hits = served.search(np.array(question["vector"], dtype=np.float32), k=question["k"])
        elif "text" in question:
            hits = served.search(question["text"], k=question["k"])
        else:
            return {"release": snapshot.release, "document": served.document}
        return {"release": snapshot.release, "ids": [hit.id for hit in hits]}


if __name__ == "__main__":
    main()
