"""``indexrelay check``: are the settings right? Opens nothing else."""

from indexrelay.console.options import Config, Json


def check(config: Config = None, json: Json = False) -> None:
    """Check the settings; every mistake is named at once, and exits 2."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    settings = Installation.at(config).settings
    if json:
        print_json(
            {
                "namespace": settings.namespace,
                "data_dir": str(settings.data_dir),
                "collections": sorted(settings.collections),
                "components": sorted(settings.components),
            }
        )
    else:
        stdout().print(
            f"✓ the settings are right: {len(settings.collections)} collection(s), "
            f"{len(settings.components)} component(s), data in {settings.data_dir}",
            soft_wrap=True,
        )
