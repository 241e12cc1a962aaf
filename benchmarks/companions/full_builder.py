"""One full build in a fresh process, whose memory is watched: ``full_builder.py FOLDER FACTORY N``.

N is the vectors' length. ``do="build"`` builds from the catalog in FOLDER, and answers with the
bytes of the index.
"""

import sys
from pathlib import Path
from typing import Any

from indexrelay.storage.artifacts import ArtifactStore
from measuring.companion_side import answering
from measuring.full_builds import CatalogBuild


def main() -> None:
    folder, factory, dimension = sys.argv[1:]
    building = CatalogBuild(folder=Path(folder), factory=factory, dimension=int(dimension))

    def build() -> dict[str, Any]:
        result = building.build()
        store = ArtifactStore(building.folder / "artifacts")
        manifest = store.version("similar", str(result.version))
        return {"index_bytes": manifest.files["base.faiss"].size}

    answering(lambda do: {"build": build}[do]())


if __name__ == "__main__":
    main()
