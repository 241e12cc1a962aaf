"""A job in a process of its own: ``python -m faults.producer CONFIG``.

Each line on standard input is one batch; each line on standard output says that it was committed.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from indexrelay.producers import Producer
from indexrelay.schemas.failpoints import arm
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings_file import load_settings


def main() -> None:
    arm(os.environ)
    settings = load_settings(Path(sys.argv[1]), environ={})
    configure_logs(settings.log)
    with Producer.open(settings) as producer:
        for line in sys.stdin:
            said = json.loads(line)
            with producer.batch("tracks", said["batch_id"]) as batch:
                batch.upsert(said["ids"], np.ones((len(said["ids"]), 2), dtype=np.float32))
            commit = batch.commit
            answer = {"generation": commit.generation, "repeated": commit.repeated}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
