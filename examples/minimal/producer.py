"""A producer in five lines: what an analysis job does with its results.

The batch is checked as it comes and committed whole when its block ends; then the event goes out.
"""

import sys
from pathlib import Path

from indexrelay.producers import Commit, Producer
from indexrelay.schemas import Settings


def job(settings: Settings) -> Commit:
    with Producer.open(settings) as producer:
        with producer.batch("tracks", batch_id="nightly 2026-11-30") as batch:
            batch.upsert(["calm", "loud"], [[1.0, 0.1], [0.1, 1.0]])
            batch.delete(["gone"])
        return batch.commit


def main() -> None:
    from examples.minimal.surroundings import surroundings

    with surroundings() as around:
        for _ in range(2):
            commit = job(around.settings)
            again = ", as before" if commit.repeated else ""
            print(
                f"{commit.batch_id}: generation {commit.generation} of {commit.collection}{again}"
            )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is found
    main()
