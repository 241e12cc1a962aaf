"""What the build server imports before it forks."""

from indexrelay.components.errors import KindNotFoundError
from indexrelay.components.registry import kind_class
from indexrelay.schemas.settings import Settings


def modules_to_preload(settings: Settings) -> list[str]:
    """The modules of every kind that is in use, and what their builds import."""
    modules: set[str] = set()
    for definition in settings.components.values():
        try:
            kind = kind_class(definition.kind)
        except KindNotFoundError:
            continue  # its build will say so
        modules |= {kind.__module__, *kind.preload}
    return sorted(modules)
