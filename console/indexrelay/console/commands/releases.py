"""``indexrelay releases``: what readers were told to serve, one after the other."""

from typing import Annotated

import typer

from indexrelay.console.options import Config, Json, alone

_MOST = 20


def build_app() -> typer.Typer:
    """The command with its sub-commands."""
    app = typer.Typer(help="What was released: a list, one in detail, or what two have different.")
    app.callback(invoke_without_command=True)(releases)
    app.command("list")(list_releases)
    app.command("show")(show)
    app.command("diff")(diff)
    app.command("sign")(sign)
    return app


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Most = Annotated[
    int, typer.Option("--most", metavar="N", min=1, help="How many to show, from the newest.")
]


def releases(
    context: typer.Context, most: Most = _MOST, config: Config = None, json: Json = False
) -> None:
    """Each release that is kept; the same as ``list``."""
    if alone(context, most=most != _MOST, config=config, json=json):
        list_releases(most=most, config=config, json=json)


def list_releases(most: Most = _MOST, config: Config = None, json: Json = False) -> None:
    """Each release that is kept, the newest first: who made it, when and why, what it changed."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.release_history import history

    with Installation.at(config) as installation:
        found = history(installation.store, most=most)
        more = len(installation.store.release_numbers()) - len(found)
    if json:
        print_json({"releases": [each.model_dump(mode="json") for each in found]})
    else:
        from indexrelay.console.release_pages import releases_table

        stdout().print(releases_table(found, more=more))


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
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.release_history import manifest_of, numbered, versions_of

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
        from indexrelay.console.release_pages import release_page

        stdout().print(release_page(found, versions, judged if checks else {}))


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
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.release_history import difference, numbered, release_before

    with Installation.at(config) as installation:
        store = installation.store
        newer = numbered(store, after)
        older = release_before(store, newer) if before is None else numbered(store, before)
        found = difference(store, older, newer)
    if json:
        print_json(found)
    else:
        from indexrelay.console.release_pages import diff_page

        stdout().print(diff_page(found))


def sign(
    release: Annotated[int, typer.Argument(metavar="RELEASE", min=1, help="Its number.")],
    yes: Yes = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Sign a release that is there, with artifacts.signing_key_file; releases made from now on are
    signed by themselves."""
    from indexrelay.console.confirming import confirm
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        if not yes:
            confirm(
                f"Whoever trusts the key will serve what release {release} names, whoever made it."
            )
        signed_by = installation.store.sign_release(release)
    if json:
        print_json({"release": release, "signed_by": list(signed_by)})
    else:
        stdout().print(f"release {release} is signed by {', '.join(signed_by)}", soft_wrap=True)
