"""Readers that find their files corrupt, and what they report."""

from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState
from indexrelay.storage.artifacts.blobs import file_identity
from indexrelay.streams import Presence
from tests.rebuilder.conftest import Bench


def rot(bench: Bench) -> None:
    """Give every blob of the released ``index`` other bytes, and the looks that it had."""
    version = bench.release().components["index"]
    for ref in bench.store.version("index", version).files.values():
        path = bench.store.blob(ref)
        content = bytearray(path.read_bytes())
        content[0] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
        for mark in bench.store.root.glob(f"checked/*/{ref.digest}"):
            mark.write_text(file_identity(path.stat()))


def state_of(bench: Bench, reader: str, error: str) -> ReaderState:
    """A reader that cannot load the released ``index``."""
    now = SystemClock().now()
    wanted = bench.release().components["index"]
    component = ComponentState(outcome=LoadOutcome.FAILED, wanted=wanted, error=error)
    return ReaderState(
        reader=reader,
        host="h",
        pid=7,
        started_at=now,
        updated_at=now,
        ready=False,
        release=bench.release().number,
        components={"index": component},
    )


def report_corruption(
    bench: Bench, *, reader: str = "web", error: str = "BlobCorruptError"
) -> None:
    """Publish it in the presence of a reader."""
    Presence(bench.connection, bench.keys, "reader").publish(
        reader, state_of(bench, reader, error).model_dump_json().encode(), ttl_seconds=60
    )
