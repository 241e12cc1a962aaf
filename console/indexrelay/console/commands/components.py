"""``indexrelay components``: a list, one in detail, and a person's pauses, holds and rollbacks.

*Pausing* keeps a component from being built. *Holding* keeps the version that is served; a
*rollback* serves earlier versions and holds them. The last two are new releases, announced at once.
The page of one component shows why its index is what it is (what was tried, what effort buys), its
checks, its files and the versions before it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from indexrelay.components.search.parts import halves_of
from indexrelay.console import figures
from indexrelay.console.commands import Config, Json, Reason, alone, component_names
from indexrelay.console.commands.rebuild import rebuild
from indexrelay.console.commands.status import (
    NONE,
    components_table,
    covered,
    facts_table,
    passed_mark,
)
from indexrelay.console.golden import golden_figures, golden_sheet
from indexrelay.console.installation import Installation, person, verdict_of
from indexrelay.console.sheet import Sheet, flowing, number, spare, whole
from indexrelay.console.terminal import adapted, print_json, stdout, visible
from indexrelay.console.versions import (
    Failing,
    ReleasedVersion,
    failing,
    released_version,
    require_released,
)
from indexrelay.console.watch import Watch, show_again
from indexrelay.operations.decisions import Decisions
from indexrelay.producers.errors import UndeclaredComponentError
from indexrelay.schemas import commands
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.parameter_files import named
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts.history import (
    HistoricalVersion,
    checked_files,
    version_history,
)

log = get_logger(__name__)
_BY_HAND: Final = "by hand"
SOURCE: Final = "indexrelay/console"
"""Of the events that a command adds."""
_DECISION: Final = ("index", "reason", "prefer", "effort", "trials", "attempts")
"""The details that are shown here, and not among the facts."""
_KNOBS: Final = ("nprobe", "ef_search", "k_factor")
_SHORT: Final = {"recall": "too little recall", "latency": "too slow"}
_PREFERRED: Final = {"latency": "its latency", "memory": "its memory", "build": "its build time"}
app = typer.Typer(add_completion=False)
Names = Annotated[
    list[str],
    typer.Argument(metavar="COMPONENT", help="One or more.", autocompletion=component_names),
]


@app.callback(invoke_without_command=True)
def components(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each component; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_components(config=config, json=json)


@app.command("list")
def list_components(config: Config = None, json: Json = False, watch: Watch = False) -> None:
    """Each component: what it covers, its state, its size."""
    with Installation.at(config) as installation:
        if watch:
            show_again(lambda: components_table(verdict_of(installation).components), json=json)
        facts = verdict_of(installation).components
    if json:
        print_json(
            {"components": {name: each.model_dump(mode="json") for name, each in facts.items()}}
        )
    else:
        stdout().print(components_table(facts))


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="COMPONENT", help="As components list shows it.", autocompletion=component_names
        ),
    ],
    config: Config = None,
    json: Json = False,
) -> None:
    """The released version of one component: whether it fails, checks, files and history."""
    with Installation.at(config) as installation:
        released = released_version(installation, name)
        versions = version_history(installation.store, name)
        fails = failing(installation, name)
    if json:
        print_json(
            {
                "version": released.id,
                **released.manifest.model_dump(mode="json"),
                "bytes": released.manifest.size,
                "history": [_historical(each) for each in versions],
                "failing": fails.as_json() if fails is not None else None,
            }
        )
    else:
        if fails is not None:
            stdout().print(failing_page(fails), soft_wrap=True)
        stdout().print(manifest_page(released, versions))


@app.command()
def pause(
    names: Names, reason: Reason = _BY_HAND, config: Config = None, json: Json = False
) -> None:
    """Keep components from being built; what they serve stays."""
    with Installation.at(config) as installation:
        require_declared(installation.settings, names)
        decisions_of(installation).pause(names, reason=reason)
    _say(
        json, {"paused": names}, f"paused {', '.join(names)}; back with: {commands.resume(*names)}"
    )


@app.command()
def resume(names: Names, config: Config = None, json: Json = False) -> None:
    """Let paused components be built again."""
    with Installation.at(config) as installation:
        require_declared(installation.settings, names)
        resumed = decisions_of(installation).resume(names)
    others = [name for name in names if name not in resumed]
    _say(
        json,
        {"resumed": resumed, "not_paused": others},
        _of_both("resumed", resumed, "not paused", others),
    )


@app.command()
def hold(
    names: Names, reason: Reason = _BY_HAND, config: Config = None, json: Json = False
) -> None:
    """Keep components at the versions that are served now."""
    with Installation.at(config) as installation:
        require_released(installation, names)
        release = decisions_of(installation).hold(names, reason=reason).number
    _say(
        json,
        {"release": release, "held": names},
        f"held {', '.join(names)} in release {release}; back with: {commands.lift(*names)}",
    )


@app.command()
def lift(
    names: Names, reason: Reason = _BY_HAND, config: Config = None, json: Json = False
) -> None:
    """Let held components follow their sources again."""
    with Installation.at(config) as installation:
        release, lifted = decisions_of(installation).lift(names, reason=reason)
    others = [name for name in names if name not in lifted]
    _say(
        json,
        {"release": release.number, "lifted": lifted, "not_held": others},
        _of_both("lifted", lifted, "not held", others),
    )


app.command("rebuild")(rebuild)


def rollback(
    release: Annotated[
        int, typer.Argument(metavar="RELEASE", min=1, help="The release to serve again.")
    ],
    component: Annotated[
        list[str] | None,
        typer.Option(
            "--component",
            metavar="COMPONENT",
            help="Only this one; may be given several times.",
            autocompletion=component_names,
        ),
    ] = None,
    reason: Reason = _BY_HAND,
    config: Config = None,
    json: Json = False,
) -> None:
    """Serve again what an earlier release served, and hold it."""
    with Installation.at(config) as installation:
        rolled = decisions_of(installation).rollback(
            release, reason=reason, components=component or None
        )
    _say(
        json,
        {"release": rolled.number, "rolled_back_to": release, "held": sorted(rolled.holds)},
        f"release {rolled.number} serves what release {release} served, and holds it: "
        f"{', '.join(sorted(rolled.holds))}; back with: {commands.lift(*sorted(rolled.holds))}",
    )


def decisions_of(installation: Installation) -> Decisions:
    """What the person who types may decide on."""
    return Decisions(
        settings=installation.settings,
        store=installation.store,
        catalog=lambda: installation.catalog,
        connection=lambda: installation.connection,
        who=person(),
        source=SOURCE,
        ask=lambda reason: installation.producer.request_rebuild(
            reason=reason, requested_by=person()
        ),
    )


def require_declared(settings: Settings, names: Iterable[str]) -> None:
    """Refuse components that the settings do not declare.

    Raises:
        UndeclaredComponentError: with the name that may have been meant.
    """
    for name in names:
        if name not in settings.components:
            raise UndeclaredComponentError(name, settings.components)


def failing_page(fails: Failing) -> Text:
    """For the top of a component's page."""
    return Text.assemble(
        ("✗ FAILING  ", "bold red"), visible(fails.sentence), "\n  → ", adapted(fails.next), "\n"
    )


def manifest_page(
    released: ReleasedVersion, history: Sequence[HistoricalVersion]
) -> RenderableType:
    """The facts, the decision, the checks, golden queries, the files, the history."""
    manifest = released.manifest
    golden = golden_sheet(
        [
            (
                _releases(each),
                "" if each.manifest is None else figures.ago(each.manifest.created_at),
                each.manifest,
            )
            for each in history
        ]
    )
    return Group(
        _facts(released),
        Text(),
        *(line for half in halves_of(manifest).values() for line in decision_page(*half)),
        _checks(manifest),
        *([] if golden is None else [golden]),
        _files(manifest),
        _history_table(history),
    )


def _facts(released: ReleasedVersion) -> Table:
    manifest = released.manifest
    facts: dict[str, str] = {
        "component": manifest.component,
        "kind": manifest.kind,
        "version": released.id,
        "covers": covered(manifest.covers),
        "entries": f"{manifest.entries:,}",
        **{f"with {what}": f"{count:,}" for what, count in manifest.counts.items()},
        **{
            f"left out of {name}": ", ".join(
                f"{count:,} {kind}" for kind, count in left_out.items()
            )
            for name, left_out in manifest.left_out.items()
        },
        "size": figures.size(manifest.size),
        "built": f"{figures.ago(manifest.created_at)}, "
        f"in {figures.seconds(manifest.build_seconds)} "
        f"and {figures.seconds(manifest.verify_seconds)} of verification",
    }
    facts |= {f"made from {name}": version[:12] for name, version in manifest.parents.items()}
    facts |= {key: figures.value(value) for key, value in named(manifest.parameters).items()}
    for name, (details, _) in halves_of(manifest).items():
        hidden = _DECISION if "index" in details else ()
        facts |= {
            f"{name} {key}".strip(): figures.value(value)
            for key, value in details.items()
            if key not in hidden
        }
    # A version may have nothing for a detail.
    return facts_table({key: value for key, value in facts.items() if value})


def decision_page(
    details: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Iterator[RenderableType]:
    """The sentence, what was tried, and the measured trade-off; nothing for other kinds."""
    index, reason = details.get("index"), details.get("reason")
    if not isinstance(index, str):
        return
    asked = parameters.get("index", "auto")
    by_auto = (
        f"chosen by auto, for {_PREFERRED.get(str(details.get('prefer')), 'what it measured')}"
    )
    how = by_auto if asked == "auto" else f"{asked} was asked for"
    yield Text.assemble(
        ("Index  ", "bold"),
        (index, "bold cyan"),
        f"  ({how}: {reason})" if reason else f"  ({how})",
    )
    attempts = _dicts(details.get("attempts"))
    if len(attempts) > 1:
        yield _attempts(attempts, index)
    trials = _dicts(details.get("trials"))
    if trials:
        yield _trade_off(trials, details.get("effort"))


def _attempts(attempts: list[Mapping[str, Any]], chosen: str) -> Sheet:
    """One row for each index; figures from a part of the entries are foreseen ones (≈)."""
    most = max(_rows(attempt) for attempt in attempts)
    sheet = Sheet(
        "Tried (✓ taken, ◦ nothing is better in everything, ≈ foreseen from a part)",
        whole(""),
        whole("index"),
        number("over"),
        number("recall@10"),
        number("a query"),
        number("memory"),
        number("built in"),
        flowing("why"),
    )
    for attempt in attempts:
        foreseen = "≈" if _rows(attempt) < most else ""
        sheet.add(
            _standing(attempt, chosen),
            str(attempt.get("index")),
            figures.value(attempt.get("rows", "")),
            _figure(attempt.get("recall")),
            foreseen + _milliseconds(attempt.get("milliseconds")),
            _size(attempt.get("bytes")),
            foreseen + _seconds(attempt.get("seconds")),
            _why(attempt),
        )
    return sheet


def _rows(attempt: Mapping[str, Any]) -> int:
    rows = attempt.get("rows")
    return rows if isinstance(rows, int) else 0


def _standing(attempt: Mapping[str, Any], chosen: str) -> Text:
    """Chosen; on the front: nothing is better in everything; short of what was asked; or none."""
    if attempt.get("index") == chosen:
        return Text("✓", style="green")
    if attempt.get("short_of"):
        return Text("✗", style="yellow")
    return Text("◦", style="cyan") if attempt.get("front") else Text()


def _why(attempt: Mapping[str, Any]) -> str:
    short = [_SHORT.get(str(each), str(each)) for each in attempt.get("short_of") or ()]
    left_out = attempt.get("left_out")
    others = [str(left_out)] if left_out else []
    return "; ".join([*short, *others]) or str(attempt.get("reason", ""))


def _trade_off(trials: list[Mapping[str, Any]], effort: object) -> Sheet:
    """One row for each effort, from the least; the one that is searched with is marked."""
    knobs = [knob for knob in _KNOBS if any(knob in trial for trial in trials)]
    sheet = Sheet(
        "Trade-off",
        whole(""),
        *(number(knob) for knob in knobs),
        number("recall@10"),
        number("a query"),
    )
    for trial in trials:
        here = {knob: trial[knob] for knob in knobs if knob in trial}
        sheet.add(
            Text("→", style="green") if here == effort else Text(),
            *(figures.value(trial.get(knob, "")) for knob in knobs),
            _figure(trial.get("recall")),
            _milliseconds(trial.get("milliseconds")),
        )
    return sheet


def _checks(manifest: VersionManifest) -> Sheet:
    sheet = Sheet(
        "Checks",
        whole(""),
        flowing("check"),
        number("measured"),
        number("limit"),
        number("took"),
        flowing("detail"),
    )
    for check, file in zip(manifest.checks, checked_files(manifest), strict=True):
        sheet.add(
            passed_mark(check.passed),
            check.name,
            figures.measured(check.name, check.measured),
            figures.measured(check.name, check.limit),
            figures.seconds(check.seconds),
            check.detail or file,
        )
    return sheet


def _files(manifest: VersionManifest) -> Sheet:
    sheet = Sheet("Files", flowing("file"), number("size"), whole("sha256"))
    for name, blob in manifest.files.items():
        sheet.add(name, figures.size(blob.size), blob.digest[:16])
    return sheet


def _historical(version: HistoricalVersion) -> dict[str, Any]:
    """The facts that a person compares; `manifest` has all of them."""
    facts, manifest = version.model_dump(mode="json", exclude={"manifest"}), version.manifest
    if manifest is None:
        return facts
    return {
        **facts,
        **manifest.model_dump(
            mode="json",
            include={"created_at", "covers", "entries", "build_seconds", "verify_seconds"},
        ),
        "bytes": manifest.size,
        "index": manifest.details.get("index"),
        "golden": None if (found := golden_figures(manifest)) is None else found.as_json(),
    }


def _history_table(history: Iterable[HistoricalVersion]) -> Sheet:
    sheet = Sheet(
        "History",
        number("releases"),
        whole("built"),
        flowing("covers"),
        number("entries"),
        number("size"),
        number("build"),
        number("verify"),
        spare("version"),
        flowing("why"),
    )
    for each in history:
        manifest = each.manifest
        facts = (
            ("not readable", "", "", "", "", "")
            if manifest is None
            else (
                figures.ago(manifest.created_at),
                covered(manifest.covers),
                f"{manifest.entries:,}",
                figures.size(manifest.size),
                figures.seconds(manifest.build_seconds),
                figures.seconds(manifest.verify_seconds),
            )
        )
        sheet.add(_releases(each), *facts, each.version[:12], each.reason)
    return sheet


def _releases(version: HistoricalVersion) -> str:
    first, last = version.first_release, version.last_release
    return str(last) if first == last else f"{first}-{last}"


def _of_both(done: str, names: Sequence[str], not_done: str, others: Sequence[str]) -> str:
    """``resumed: map; not paused: index``."""
    parts = {done: names, not_done: others}
    return "; ".join(f"{what}: {', '.join(who)}" for what, who in parts.items() if who)


def _say(json: bool, document: dict[str, int | str | Sequence[str]], sentence: str) -> None:
    if json:
        print_json(dict(document))
    else:
        stdout().print(f"✓ {adapted(sentence)}", soft_wrap=True)


def _dicts(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _figure(value: object) -> str:
    return figures.number(value) if isinstance(value, int | float) else NONE


def _milliseconds(value: object) -> str:
    return figures.milliseconds(value) if isinstance(value, int | float) else NONE


def _size(value: object) -> str:
    return figures.size(value) if isinstance(value, int | float) else NONE


def _seconds(value: object) -> str:
    return figures.seconds(value) if isinstance(value, int | float) else NONE
