"""``indexrelay dead``: what was taken from a stream and could not be read."""

from typing import Annotated

import typer

from indexrelay.console.options import Config, Json, alone

Letter = Annotated[int, typer.Argument(metavar="ID", help="As dead list shows it.")]
Letters = Annotated[list[int] | None, typer.Argument(metavar="ID", help="As dead list shows them.")]
All = Annotated[bool, typer.Option("--all", help="All that there are.")]


def build_app() -> typer.Typer:
    """The command with its sub-commands."""
    app = typer.Typer(help="Dead letters: events that could not be read, kept byte for byte.")
    app.callback(invoke_without_command=True)(dead)
    app.command("list")(list_letters)
    app.command("show")(show)
    app.command("retry")(retry)
    app.command("drop")(drop)
    return app


def dead(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each letter; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_letters(config=config, json=json)


def list_letters(config: Config = None, json: Json = False) -> None:
    """Each letter: where it came from, and why it could not be read."""
    from dataclasses import asdict

    from indexrelay.console.escaping import visible
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        letters = installation.catalog.dead_letters.headers()
        let_go = installation.catalog.dead_letters.let_go()
    if json:
        print_json(
            {
                "letters": [
                    {
                        key: visible(value) if isinstance(value, str) else value
                        for key, value in asdict(letter).items()
                    }
                    | {"buried_at": letter.buried_at.isoformat()}
                    for letter in letters
                ],
                "let_go": 0 if let_go is None else let_go.count,
            }
        )
    else:
        from indexrelay.console.letter_pages import letters_table

        stdout().print(letters_table(letters))
        if let_go is not None:
            stdout().print(f"{let_go.count:,} more could not be read and were not kept")


def show(letter: Letter, config: Config = None, json: Json = False) -> None:
    """One letter with its bytes, as far as they are kept: a hex dump, or base64 with --json."""
    from base64 import b64encode

    from indexrelay.console.escaping import visible
    from indexrelay.console.installation import Installation
    from indexrelay.console.letters import letter_of
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        found = letter_of(installation, letter)
    if json:
        print_json(
            {
                "id": found.id,
                "stream": visible(found.stream),
                "entry_id": visible(found.entry_id),
                "size": found.size,
                "sha256": found.digest,
                "reason": visible(found.reason),
                "buried_at": found.buried_at.isoformat(),
                "raw_base64": b64encode(found.raw).decode("ascii"),
            }
        )
    else:
        from indexrelay.console.letter_pages import letter_page

        stdout().print(letter_page(found))


def retry(
    letters: Letters = None, every: All = False, config: Config = None, json: Json = False
) -> None:
    """Read letters again: what is readable now becomes an event; exits 3 when some are not."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.letters import chosen, exit_code
    from indexrelay.console.letters import retry as retry_letters
    from indexrelay.console.output import note, print_json, stdout

    with Installation.at(config) as installation:
        retried = retry_letters(installation, chosen(installation, letters, every=every))
    if json:
        print_json(retried)
    else:
        from indexrelay.console.letter_pages import outcomes_list

        stdout().print(outcomes_list(retried.letters))
    received = any(letter.outcome == "received" for letter in retried.letters)
    if received and not retried.woken:
        note("Redis does not answer; a rebuilder sees them at its next reconcile")
    raise typer.Exit(exit_code(retried.letters))


def drop(
    letters: Letters = None, every: All = False, config: Config = None, json: Json = False
) -> None:
    """Forget letters for good; exits 3 when some of them were not there."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.letters import chosen, exit_code
    from indexrelay.console.letters import drop as drop_letters
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        dropped = drop_letters(installation, chosen(installation, letters, every=every))
    if json:
        print_json({"letters": [letter.model_dump(mode="json") for letter in dropped]})
    else:
        from indexrelay.console.letter_pages import outcomes_list

        stdout().print(outcomes_list(dropped))
    raise typer.Exit(exit_code(dropped))
