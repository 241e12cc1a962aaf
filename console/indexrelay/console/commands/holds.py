"""What a person decides over the rebuilder's head: pause, hold, roll back, and the way back.

*Pausing* keeps a component from being built. *Holding* keeps the version that is served, and a
*rollback* serves earlier ones and holds them. The last two are new releases.
"""

from collections.abc import Sequence
from typing import Annotated

import typer

from indexrelay.console.completion import component_names
from indexrelay.console.options import Config, Json, Reason
from indexrelay.schemas import commands

Names = Annotated[
    list[str],
    typer.Argument(metavar="COMPONENT", help="One or more.", autocompletion=component_names),
]
_BY_HAND = "by hand"


def pause(
    names: Names, reason: Reason = _BY_HAND, config: Config = None, json: Json = False
) -> None:
    """Keep components from being built; what they serve stays."""
    from indexrelay.console.holding import require_declared
    from indexrelay.console.installation import Installation

    with Installation.at(config) as installation:
        require_declared(installation.settings, names)
        for name in names:
            installation.catalog.attempts.pause(name, reason)
    _say(
        json, {"paused": names}, f"paused {', '.join(names)}; back with: {commands.resume(*names)}"
    )


def resume(names: Names, config: Config = None, json: Json = False) -> None:
    """Let paused components be built again."""
    from indexrelay.console.holding import require_declared
    from indexrelay.console.installation import Installation

    with Installation.at(config) as installation:
        require_declared(installation.settings, names)
        resumed = [name for name in names if installation.catalog.attempts.resume(name)]
        if resumed:
            installation.producer.request_rebuild(reason=f"resumed {', '.join(resumed)}")
    others = [name for name in names if name not in resumed]
    _say(
        json,
        {"resumed": resumed, "not_paused": others},
        _of_both("resumed", resumed, "not paused", others),
    )


def hold(
    names: Names, reason: Reason = _BY_HAND, config: Config = None, json: Json = False
) -> None:
    """Keep components at the versions that are served now."""
    from indexrelay.console.holding import announced
    from indexrelay.console.installation import Installation
    from indexrelay.console.released import require_released

    with Installation.at(config) as installation:
        require_released(installation, names)
        release = announced(installation, installation.store.hold(*names, reason=reason))
    _say(
        json,
        {"release": release, "held": names},
        f"held {', '.join(names)} in release {release}; back with: {commands.lift(*names)}",
    )


def lift(
    names: Names, reason: Reason = _BY_HAND, config: Config = None, json: Json = False
) -> None:
    """Let held components follow their sources again."""
    from indexrelay.console.holding import announced
    from indexrelay.console.installation import Installation

    with Installation.at(config) as installation:
        newest = installation.store.newest_release()
        held = newest.holds if newest is not None else {}
        release = announced(installation, installation.store.lift(*names, reason=reason))
        lifted = [name for name in names if name in held]
        if lifted:
            installation.producer.request_rebuild(reason=f"lifted {', '.join(lifted)}")
    others = [name for name in names if name not in held]
    _say(
        json,
        {"release": release, "lifted": lifted, "not_held": others},
        _of_both("lifted", lifted, "not held", others),
    )


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
    from indexrelay.console.holding import announced
    from indexrelay.console.installation import Installation

    with Installation.at(config) as installation:
        rolled = installation.store.rollback(release, reason=reason, components=component or None)
        number = announced(installation, rolled)
    _say(
        json,
        {"release": number, "rolled_back_to": release, "held": sorted(rolled.holds)},
        f"release {number} serves what release {release} served, and holds it: "
        f"{', '.join(sorted(rolled.holds))}; back with: {commands.lift(*sorted(rolled.holds))}",
    )


def _of_both(done: str, names: Sequence[str], spared: str, others: Sequence[str]) -> str:
    """What was done, and to whom there was nothing to do."""
    told = {done: names, spared: others}
    return "; ".join(f"{what}: {', '.join(who)}" for what, who in told.items() if who)


def _say(json: bool, document: dict[str, int | str | Sequence[str]], sentence: str) -> None:
    from indexrelay.console.invocation import adapted
    from indexrelay.console.output import print_json, stdout

    if json:
        print_json(dict(document))
    else:
        stdout().print(f"✓ {adapted(sentence)}", soft_wrap=True)
