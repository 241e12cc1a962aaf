"""Whether each file of the kept versions is as its digest says: ``maintenance scrub``."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands.backup import bytes_bar
from indexrelay.console.commands.status import passed_mark
from indexrelay.console.terminal import advice_line
from indexrelay.schemas import commands
from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    BlobMissingError,
    VersionUnreadableError,
)
from indexrelay.storage.artifacts.usage import VersionUsage


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class Corrupt(_Fact):
    """One file that is not what its name says."""

    digest: str
    reason: str
    components: tuple[str, ...]
    """Of the versions that name it."""


class Scrubbed(_Fact):
    """What was read, and what of it is wrong."""

    versions: int
    blobs: int
    bytes: int
    corrupt: tuple[Corrupt, ...]


def scrubbed_versions(store: ArtifactStore, versions: Iterable[VersionUsage]) -> Scrubbed:
    """Hash every blob of these versions once, with a bar on stderr.

    Raises:
        StoreAccessError: one cannot be read.
    """
    refs: dict[str, BlobRef] = {}
    users: dict[str, set[str]] = {}
    corrupt: list[Corrupt] = []
    count = 0
    for each in versions:
        count += 1
        try:
            manifest = store.version(each.component, each.version)
        except VersionUnreadableError as error:
            if not error.missing:  # else it was collected meanwhile
                damaged = Corrupt(
                    digest=each.version, reason=str(error), components=(each.component,)
                )
                corrupt.append(damaged)
            continue
        for ref in manifest.files.values():
            refs[ref.digest] = ref
            users.setdefault(ref.digest, set()).add(each.component)
    total, done = sum(ref.size for ref in refs.values()), 0
    with bytes_bar("scrubbing") as progress:

        def read(some: int) -> bool:
            nonlocal done
            done += some
            progress(done, total)
            return True

        for digest, ref in sorted(refs.items()):
            try:
                store.recheck_blob(ref, go_on=read)
            except (BlobCorruptError, BlobMissingError) as error:
                names = tuple(sorted(users[digest]))
                corrupt.append(Corrupt(digest=digest, reason=str(error), components=names))
    return Scrubbed(versions=count, blobs=len(refs), bytes=done, corrupt=tuple(corrupt))


def scrubbed_page(scrubbed: Scrubbed) -> RenderableType:
    """What is wrong, or that nothing is."""
    read = (
        f"{scrubbed.versions} version(s), {scrubbed.blobs} blob(s), "
        f"{figures.size(scrubbed.bytes)} read"
    )
    if not scrubbed.corrupt:
        return Text.assemble(passed_mark(True), f" {read}: all of it is as its digests say")
    lines: list[Text] = [Text(read)]
    for each in scrubbed.corrupt:
        lines.append(
            Text.assemble(passed_mark(False), f" {', '.join(each.components)}: {each.reason}")
        )
        again = commands.rebuild(*each.components, full=True)
        lines.append(advice_line(f"if it is served, build it again: {again}"))
    return Group(*lines)
