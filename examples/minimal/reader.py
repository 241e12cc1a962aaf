"""A reader in five lines: what a serving process does.

It follows the releases by itself; a query borrows what is in place and never waits for a reload.
"""

import sys
from pathlib import Path

from indexrelay.reloaders import Reloader
from indexrelay.schemas import Settings


def serve(settings: Settings) -> None:
    reloader = Reloader(settings, reader_id="web-1")
    reloader.start()
    if reloader.wait_ready(timeout_seconds=30):
        with reloader.acquire() as snapshot:
            print("most like [1, 0]:", [hit.id for hit in snapshot["similar"].search([1.0, 0.0])])
    reloader.stop()


def main() -> None:
    from examples.minimal.producer import job
    from examples.minimal.surroundings import surroundings

    with surroundings(similar={"kind": "vector_index", "from": "tracks"}) as around:
        job(around.settings)
        result = around.rebuilder.step()
        print(result.message if result else "nothing was due")
        serve(around.settings)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is found
    main()
