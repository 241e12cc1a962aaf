"""``indexrelay keys``: the keys that releases are signed with."""

from pathlib import Path
from typing import Annotated

import typer

from indexrelay.console.commands import Config, Json
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.console.terminal import print_json, stderr, stdout
from indexrelay.schemas import commands
from indexrelay.storage.artifacts import SigningKey

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def generate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the private key.")],
    json: Json = False,
) -> None:
    """Make a key: the private part goes into a new file of yours alone, the public one is shown."""
    key = SigningKey.generate()
    try:
        key.write(file)
    except OSError as error:
        raise CommandError(
            f"{file} cannot be made: {error.strerror}; nothing was written"
        ) from error
    if json:
        print_json({"file": str(file), "public_key": key.public})
        return
    stdout().print(key.public, soft_wrap=True)
    stderr().print(
        f"The private key is in {file}; who has it can sign as you do. Where releases are made:\n"
        f'  artifacts.signing_key_file = "{file}"\n'
        "Once the newest release is signed, where they are read:\n"
        f'  artifacts.trusted_keys = ["{key.public}"]',
        soft_wrap=True,
    )


@app.command()
def show(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Default: artifacts.signing_key_file."),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """The public key of a private one, as artifacts.trusted_keys takes it."""
    if file is None:
        with Installation.at(config) as installation:
            file = installation.settings.artifacts.signing_key_file
    if file is None:
        raise CommandError(
            "name the file of a private key, or set artifacts.signing_key_file; "
            f"make one with: {commands.GENERATE_KEY}"
        )
    public = SigningKey.read(file).public
    if json:
        print_json({"file": str(file), "public_key": public})
    else:
        stdout().print(public, soft_wrap=True)
