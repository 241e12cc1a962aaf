"""Run the example: ``python examples/music/run.py``.

Starts a server, a rebuilder and two reader processes in a temporary folder, tells the story, and
leaves nothing behind. Ends 0 when it went as `expected.txt` says.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Put everything together and take it apart again."""
    from pydantic import SecretStr

    from examples.music.analysis import Analysis
    from examples.music.reader import ReaderProcess
    from examples.music.story import Story
    from examples.music.watching import Watcher
    from indexrelay.components import check_kind
    from indexrelay.producers import Producer
    from indexrelay.rebuilder import Rebuilder
    from indexrelay.schemas import RedisSettings, configure_logs, load_settings
    from indexrelay.storage import ArtifactStore, Catalog
    from indexrelay.streams import Connection, EmbeddedServer

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="indexrelay-music-")))
        settings = load_settings(
            HERE / "indexrelay.toml",
            environ={"INDEXRELAY_DATA_DIR": str(folder)},
            check_kind=check_kind,
        )
        configure_logs(settings.log)
        server = EmbeddedServer(folder)
        stack.callback(server.stop)
        redis = RedisSettings(url=SecretStr(server.start()))
        settings = settings.model_copy(update={"redis": redis})
        connection = Connection.open(str(settings.redis_url))
        stack.callback(connection.close)
        catalog = Catalog.open(settings.catalog_url)
        stack.callback(catalog.close)
        store = ArtifactStore.of(settings)
        producer = stack.enter_context(Producer(settings, catalog=catalog, connection=connection))
        readers = {}
        for name, artifacts in (("stage", folder / "stage"), ("studio", settings.artifacts_dir)):
            readers[name] = ReaderProcess(settings, name, artifacts=artifacts)
            stack.callback(readers[name].stop)
        rebuilder = Rebuilder(settings, catalog=catalog, store=store, connection=connection)
        stack.callback(rebuilder.stop)
        story = Story(
            analysis=Analysis(producer),
            rebuilder=rebuilder,
            store=store,
            readers=readers,
            watcher=Watcher(settings, connection),
        )
        well = story.tell()
    print("\nAll is well." if well else "\nThis should not have happened.")
    return 0 if well else 1


if __name__ == "__main__":
    # The example's own modules are found from the checkout, wherever it is started from.
    sys.path.insert(0, str(HERE.parents[1]))
    sys.exit(main())
