"""``indexrelay tokens``: who may ask a reader over HTTP."""

from json import dumps

import typer

from indexrelay.console.commands import Config, Json
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, spare, whole
from indexrelay.console.terminal import note, print_json, stderr, stdout
from indexrelay.schemas import commands

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def generate(json: Json = False) -> None:
    """Make a token: it is shown this once; the settings get its sha256."""
    from indexrelay.service.tokens import digest_of, new_token

    token = new_token()
    digest = digest_of(token)
    if json:
        print_json({"token": token, "sha256": digest})
        return
    stdout().print(token, soft_wrap=True)
    stderr().print(
        "Keep it now: it is written down nowhere. Readers that are to know it have this in their\n"
        "settings, under a name of your choice, and read these again (SIGHUP):\n"
        "  [http.tokens.NAME]\n"
        f'  sha256 = "{digest}"\n'
        '  scope = "read"        # or "write", or "admin", which may have failed loads tried again',
        soft_wrap=True,
        markup=False,
    )


@app.command("list")
def list_tokens(config: Config = None, json: Json = False) -> None:
    """The tokens that the settings know: their names, and what each may do."""
    with Installation.at(config) as installation:
        tokens = installation.settings.http.tokens
    if json:
        print_json({"tokens": {name: each.model_dump() for name, each in tokens.items()}})
    elif not tokens:
        note(
            "no token is needed, and readers listen on this machine only; to make one: "
            f"{commands.GENERATE_TOKEN}"
        )
    else:
        sheet = Sheet("Tokens", flowing("name"), whole("scope"), flowing("filter"), spare("sha256"))
        for name, each in tokens.items():
            shown = "" if each.filter is None else dumps(each.filter, ensure_ascii=False)
            sheet.add(name, each.scope, shown, each.sha256[:12])
        stdout().print(sheet)
