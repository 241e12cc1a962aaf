"""A publisher as a process: ``python -m faults.publisher STORE COMPONENT…``.

Each line on standard input is one thing to do, each line on standard output its answer. ``{"build":
{component: generation}}`` puts versions into the store and answers with their ids; ``{"publish":
{component: id}}`` answers with the release that came of them, or ``null``: nothing was newer.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from faults.kinds import FILE
from faults.recorder import COLLECTION
from indexrelay.rebuilder.publisher import Publisher
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.failpoints import arm
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.artifacts.files import staged_name

KIND = "faults.kinds:RollCall"
EPOCH = "e"


def main() -> None:
    arm(os.environ)
    store = ArtifactStore(Path(sys.argv[1]))
    definitions = {name: ComponentDefinition.of(KIND, COLLECTION) for name in sys.argv[2:]}
    publisher = Publisher(store=store, clock=SystemClock())
    for line in sys.stdin:
        said = json.loads(line)
        if "build" in said:
            answer: object = {
                name: _build(store, name, definitions[name], generation)
                for name, generation in said["build"].items()
            }
        else:
            answer = _publish(publisher, store, definitions, said["publish"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _build(
    store: ArtifactStore, name: str, definition: ComponentDefinition, generation: int
) -> str:
    """A version that covers ``generation``, and whose file says so."""
    with staged_name(store.staging) as file:
        file.write_text(json.dumps([f"{name}-{generation}"]), encoding="utf-8")
        blob = store.put_blob(file)
    return store.put_version(
        VersionManifest(
            component=name,
            kind=definition.kind,
            definition=definition.digest,
            covers={COLLECTION: generation},
            epochs={COLLECTION: EPOCH},
            files={FILE: blob},
            entries=1,
            created_at=SystemClock().now(),
        )
    )


def _publish(
    publisher: Publisher,
    store: ArtifactStore,
    definitions: Mapping[str, ComponentDefinition],
    built: Mapping[str, str],
) -> object:
    """What a pass does with what it built: the real publisher decides what is still newer."""
    manifests = {name: store.version(name, version) for name, version in built.items()}
    release = publisher.publish(manifests, definitions=definitions, reason="at once").release
    return None if release is None else {"number": release.number, "digest": release.digest}


if __name__ == "__main__":
    main()
