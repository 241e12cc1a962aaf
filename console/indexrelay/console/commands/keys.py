"""``indexrelay keys``: the keys that releases are signed with."""

from pathlib import Path
from typing import Annotated

import typer

from indexrelay.console.options import Config, Json


def build_app() -> typer.Typer:
    """The command with its sub-commands."""
    app = typer.Typer(
        help="Keys that releases are signed with: make one, or show its public part.",
        no_args_is_help=True,
    )
    app.command("generate")(generate)
    app.command("show")(show)
    return app


def generate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the private key.")],
    json: Json = False,
) -> None:
    """Make a key: the private part goes into a new file of yours alone, the public one is shown."""
    from indexrelay.console.errors import CommandError
    from indexrelay.console.terminal import print_json, stderr, stdout
    from indexrelay.storage.artifacts import SigningKey

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
    stdout().print(key.public, soft_wrap=True, highlight=False)
    stderr().print(
        f"The private key is in {file}; whoever has it signs as you do. Where releases are made:\n"
        f'  artifacts.signing_key_file = "{file}"\n'
        "Once the newest release is signed, where they are read:\n"
        f'  artifacts.trusted_keys = ["{key.public}"]',
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def show(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Default: artifacts.signing_key_file."),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """The public key of a private one, as artifacts.trusted_keys takes it."""
    from indexrelay.console.errors import CommandError
    from indexrelay.console.installation import Installation
    from indexrelay.console.terminal import print_json, stdout
    from indexrelay.schemas import commands
    from indexrelay.storage.artifacts import SigningKey

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
        stdout().print(public, soft_wrap=True, highlight=False)
