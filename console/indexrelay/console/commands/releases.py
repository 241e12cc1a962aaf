"""``indexrelay releases``: a list, one in detail, the difference of two, and a signature."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, alone, confirm
from indexrelay.console.commands.status import NONE, facts_table, passed_mark
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import advice_line, print_json, stdout, visible
from indexrelay.console.versions import NOTHING_RELEASED
from indexrelay.schemas import commands
from indexrelay.schemas.versions import Check, Release
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.artifacts.history import (
    Changed,
    ComponentChange,
    ReleaseDiff,
    ReleaseFacts,
    VersionFacts,
    difference,
    manifest_of,
    newest_readable,
    release_history,
    versions_of,
)
from indexrelay.storage.audit import AuditAction

_MOST: Final = 20
app = typer.Typer(add_completion=False)
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Most = Annotated[
    int, typer.Option("--most", metavar="N", min=1, help="How many to show, from the newest.")
]


@app.callback(invoke_without_command=True)
def releases(
    context: typer.Context, most: Most = _MOST, config: Config = None, json: Json = False
) -> None:
    """Each release that is kept; the same as ``list``."""
    if alone(context, most=most != _MOST, config=config, json=json):
        list_releases(most=most, config=config, json=json)


@app.command("list")
def list_releases(most: Most = _MOST, config: Config = None, json: Json = False) -> None:
    """Each release that is kept, the newest first: who made it, when and why, what it changed."""
    with Installation.at(config) as installation:
        found = release_history(installation.store, most=most)
        more = len(installation.store.release_numbers()) - len(found)
    if json:
        print_json({"releases": [each.model_dump(mode="json") for each in found]})
    else:
        stdout().print(releases_table(found, more=more))


@app.command()
def show(
    release: Annotated[
        int | None, typer.Argument(metavar="RELEASE", min=1, help="Default: the newest.")
    ] = None,
    checks: Annotated[
        bool, typer.Option("--checks", help="Also what the gates measured of each component.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """One release: what it serves, who made it, when and why, and what it holds."""
    with Installation.at(config) as installation:
        found = numbered(installation.store, release)
        versions = versions_of(installation.store, found)
        manifests = {
            name: manifest_of(installation.store, name, version)
            for name, version in found.components.items()
        }
    judged = {name: each.checks for name, each in manifests.items() if each is not None}
    if json:
        print_json(
            {
                **found.model_dump(mode="json"),
                "components": {
                    name: each.model_dump(mode="json")
                    | {"checks": [check.model_dump(mode="json") for check in judged.get(name, ())]}
                    for name, each in versions.items()
                },
            }
        )
    else:
        stdout().print(release_page(found, versions, judged if checks else {}))


@app.command()
def diff(
    before: Annotated[
        int | None,
        typer.Argument(metavar="BEFORE", min=1, help="Default: the one before AFTER."),
    ] = None,
    after: Annotated[
        int | None, typer.Argument(metavar="AFTER", min=1, help="Default: the newest.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """What changed from one release to another: components, entries, covers, holds, groups."""
    with Installation.at(config) as installation:
        store = installation.store
        newer = numbered(store, after)
        older = release_before(store, newer) if before is None else numbered(store, before)
        found = difference(store, older, newer)
    if json:
        print_json(found)
    else:
        stdout().print(diff_page(found))


@app.command()
def sign(
    release: Annotated[int, typer.Argument(metavar="RELEASE", min=1, help="Its number.")],
    yes: Yes = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Sign a kept release with artifacts.signing_key_file; new releases are signed when made."""
    with Installation.at(config) as installation:
        if not yes:
            confirm(f"Readers that trust the key will serve release {release}, whoever made it.")
        signed_by = installation.store.sign_release(release)
        installation.audit(AuditAction.RELEASE_SIGNED, subject=f"release {release}")
    if json:
        print_json({"release": release, "signed_by": list(signed_by)})
    else:
        stdout().print(f"release {release} is signed by {', '.join(signed_by)}", soft_wrap=True)


_MARKS: Final = {
    Changed.ADDED: Text("+", style="green"),
    Changed.REMOVED: Text("-", style="red"),
    Changed.CHANGED: Text("~", style="yellow"),
}


def numbered(store: ArtifactStore, number: int | None) -> Release:
    """One release; ``None``: the newest.

    Raises:
        CommandError: there is none yet, or none of that number; names those there are.
        ReleaseUnreadableError: it is corrupt.
    """
    if number is None:
        newest = store.newest_release()
        if newest is None:
            raise CommandError(NOTHING_RELEASED)
        return newest
    numbers = store.release_numbers()
    if number not in numbers:
        kept = f"there are {_spans(numbers)}" if numbers else "there is none"
        raise CommandError(f"there is no release {number}, or not any more; {kept}")
    return store.release(number)


def release_before(store: ArtifactStore, release: Release) -> Release:
    """The newest one below ``release`` that can be read.

    Raises:
        CommandError: it is the first of those that are kept.
    """
    below = [each for each in store.release_numbers() if each < release.number]
    older = newest_readable(store, below)
    if older is None:
        raise CommandError(
            f"release {release.number} is the oldest that is kept: there is nothing to compare "
            f"it with; look at it: {commands.release(release.number)}"
        )
    return older


def releases_table(releases: Iterable[ReleaseFacts], *, more: int) -> RenderableType:
    """One row for each, the newest first; ``more``: how many older ones are not shown."""
    sheet = Sheet(
        "Releases",
        number("release"),
        whole("made"),
        number("components"),
        flowing("changed"),
        flowing("held"),
        spare("by"),
        flowing("why"),
    )
    for each in releases:
        readable = each.made_at is not None
        sheet.add(
            str(each.number),
            figures.ago(each.made_at),
            str(each.components) if readable else NONE,
            _changes(each) if readable else NONE,
            ", ".join(each.holds) or NONE,
            each.by or NONE,
            each.reason,
        )
    rest = [Text(f"{more:,} older ones are kept; --most shows more")] if more > 0 else []
    return Group(sheet, *rest)


def release_page(
    release: Release, versions: Mapping[str, VersionFacts], checks: Mapping[str, Sequence[Check]]
) -> RenderableType:
    """Who made it, when and why, what it serves, and (if they are given) what the gates found."""
    facts = {
        "release": str(release.number),
        "made": f"{figures.moment(release.created_at)}, {figures.ago(release.created_at)}",
        "by": release.by or "not given",
        "why": release.reason or "not given",
        "follows": str(release.previous) if release.previous else "nothing: it is the first",
        "digest": release.digest,
    }
    parts: list[RenderableType] = [facts_table(facts), Text(), _versions(release, versions)]
    if checks:
        parts.append(_checks(checks))
    for name, hold in sorted(release.holds.items()):
        since = figures.ago(hold.since)
        parts.append(Text(f"{name} is held since {since}: {visible(hold.reason)}", style="magenta"))
        parts.append(advice_line(f"when it may move on: {commands.lift(name)}"))
    return Group(*parts)


def diff_page(diff: ReleaseDiff) -> RenderableType:
    """What is different, the components first."""
    title = f"Release {diff.before} → {diff.after}"
    if not (diff.components or diff.held or diff.lifted or diff.regrouped):
        return Text(f"{title}: nothing is different", style="green")
    sheet = Sheet(
        title,
        whole(""),
        flowing("component"),
        whole("change"),
        number("entries"),
        number(""),
        number("size"),
        flowing("covers"),
        spare("version"),
    )
    for name, each in diff.components.items():
        sheet.add(_MARKS[each.change], name, *_compared(each))
    parts: list[RenderableType] = [sheet] if diff.components else [Text(title, style="bold")]
    if diff.same:
        parts.append(Text(f"unchanged: {', '.join(diff.same)}"))
    parts += [
        Text(f"{name} is held: {visible(hold.reason)}", style="magenta")
        for name, hold in sorted(diff.held.items())
    ]
    if diff.lifted:
        parts.append(Text(f"no longer held: {', '.join(diff.lifted)}"))
    parts += [
        Text(f"{name}: group {before or 'none'} → {after or 'none'}")
        for name, (before, after) in diff.regrouped.items()
    ]
    return Group(*parts)


def _spans(numbers: list[int]) -> str:
    """``3-7, 9``: of numbers in falling order, the runs."""
    spans: list[list[int]] = []
    for each in sorted(numbers):
        if spans and each == spans[-1][1] + 1:
            spans[-1][1] = each
        else:
            spans.append([each, each])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _changes(release: ReleaseFacts) -> str:
    """``+new ~changed -gone``; a dash where a release only holds or lifts."""
    parts = [
        f"{mark}{name}"
        for mark, names in (("+", release.added), ("~", release.changed), ("-", release.removed))
        for name in names
    ]
    return " ".join(parts) or NONE


def _versions(release: Release, versions: Mapping[str, VersionFacts]) -> Sheet:
    sheet = Sheet(
        "Components",
        flowing("component"),
        flowing("kind"),
        number("entries"),
        number("size"),
        whole("built"),
        flowing("covers"),
        flowing("group"),
        spare("version"),
    )
    for name, each in versions.items():
        sheet.add(
            name,
            "not readable" if each.kind is None else each.kind.rpartition(":")[2],
            NONE if each.entries is None else f"{each.entries:,}",
            NONE if each.bytes is None else figures.size(each.bytes),
            figures.ago(each.built_at),
            _covers(each.covers),
            release.groups.get(name, NONE),
            each.version[:12],
        )
    return sheet


def _checks(checks: Mapping[str, Sequence[Check]]) -> Sheet:
    sheet = Sheet(
        "Checks",
        flowing("component"),
        whole(""),
        flowing("check"),
        number("measured"),
        number("limit"),
    )
    for name, found in checks.items():
        rows = list(_rows(found))
        for index, row in enumerate(rows):
            sheet.add("" if index else name, *row, end_section=index == len(rows) - 1)
    return sheet


def _rows(checks: Sequence[Check]) -> Iterator[tuple[str | Text, ...]]:
    """A row for each check; files that read back as they were written are one row together."""
    read_back = [check for check in checks if check.name == "bytes" and check.passed]
    if read_back:
        total = figures.size(sum(check.measured or 0 for check in read_back))
        yield passed_mark(True), f"bytes of {len(read_back)} file(s)", total, ""
    for check in checks:
        if check not in read_back:
            yield (
                passed_mark(check.passed),
                check.name,
                figures.measured(check.name, check.measured),
                figures.measured(check.name, check.limit),
            )


def _compared(each: ComponentChange) -> tuple[str, ...]:
    """The cells of one component that differs."""
    old, new = each.before, each.after
    shown = new or old
    assert shown is not None  # noqa: S101 - a component is in one of the two
    grown = ""
    if old is not None and new is not None and None not in (old.entries, new.entries):
        grown = figures.more((new.entries or 0) - (old.entries or 0))
    what = str(each.change) + (", new settings" if each.redefined else "")
    return (
        what,
        NONE if shown.entries is None else f"{shown.entries:,}",
        grown,
        NONE if shown.bytes is None else figures.size(shown.bytes),
        _moved(old, new),
        " → ".join(one.version[:12] for one in (old, new) if one is not None),
    )


def _moved(old: VersionFacts | None, new: VersionFacts | None) -> str:
    """``tracks 4 → 7``; only the number where it did not move."""
    if old is None or new is None:
        return _covers((new or old or VersionFacts(version="")).covers)
    parts = []
    for name in sorted({*old.covers, *new.covers}):
        before, after = old.covers.get(name, 0), new.covers.get(name, 0)
        parts.append(f"{name} {after}" if before == after else f"{name} {before} → {after}")
    return ", ".join(parts) or NONE


def _covers(covers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {upto}" for name, upto in sorted(covers.items())) or NONE
