"""Releases for a person: a list, one in detail, and what changed between two."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.console import figures
from indexrelay.console.escaping import visible
from indexrelay.console.invocation import advice_line
from indexrelay.console.release_history import (
    Changed,
    ComponentChange,
    ReleaseDiff,
    ReleaseFacts,
    VersionFacts,
)
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.schemas import commands
from indexrelay.schemas.versions import Check, Release

_NONE = "-"
_MARKS = {
    Changed.ADDED: Text("+", style="green"),
    Changed.REMOVED: Text("-", style="red"),
    Changed.CHANGED: Text("~", style="yellow"),
}


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
            str(each.components) if readable else _NONE,
            _changes(each) if readable else _NONE,
            ", ".join(each.holds) or _NONE,
            each.by or _NONE,
            each.reason,
        )
    rest = [Text(f"{more:,} older ones are kept; --most shows more")] if more > 0 else []
    return Group(sheet, *rest)


def release_page(
    release: Release, versions: Mapping[str, VersionFacts], checks: Mapping[str, Sequence[Check]]
) -> RenderableType:
    """Who made it, when and why, what it serves, and (if they are given) what the gates found."""
    rows = {
        "release": str(release.number),
        "made": f"{figures.moment(release.created_at)}, {figures.ago(release.created_at)}",
        "by": release.by or "not said",
        "why": release.reason or "not said",
        "follows": str(release.previous) if release.previous else "nothing: it is the first",
        "digest": release.digest,
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        table.add_row(Text(key, style="bold"), Text(visible(value)))
    parts: list[RenderableType] = [table, Text(), _versions(release, versions)]
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


def _changes(release: ReleaseFacts) -> str:
    """``+new ~changed -gone``; a dash where a release only holds or lifts."""
    told = [
        f"{mark}{name}"
        for mark, names in (("+", release.added), ("~", release.changed), ("-", release.removed))
        for name in names
    ]
    return " ".join(told) or _NONE


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
            _NONE if each.entries is None else f"{each.entries:,}",
            _NONE if each.bytes is None else figures.size(each.bytes),
            figures.ago(each.built_at),
            _covers(each.covers),
            release.groups.get(name, _NONE),
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
        yield _mark(passed=True), f"bytes of {len(read_back)} file(s)", total, ""
    for check in checks:
        if check not in read_back:
            yield (
                _mark(passed=check.passed),
                check.name,
                figures.measured(check.name, check.measured),
                figures.measured(check.name, check.limit),
            )


def _mark(*, passed: bool) -> Text:
    return Text("✓", style="green") if passed else Text("✗", style="red")


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
        _NONE if shown.entries is None else f"{shown.entries:,}",
        grown,
        _NONE if shown.bytes is None else figures.size(shown.bytes),
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
    return ", ".join(parts) or _NONE


def _covers(covers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {upto}" for name, upto in sorted(covers.items())) or _NONE
