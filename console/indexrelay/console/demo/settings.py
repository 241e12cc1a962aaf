"""The demo's settings: one collection and six components, written as the file a user would write.

With ``--data`` the file stays, and every command works on what the demo has left. With ``--fail``
one component gets the kind `Breakable`, which builds as another kind does while a marker file is
absent: the failure goes the way of any build that raises.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field

from indexrelay.components.kind import Built, Job, Kind, KindParameters
from indexrelay.components.registry import check_kind, kind_class
from indexrelay.components.served import Served
from indexrelay.console.errors import CommandError
from indexrelay.schemas.errors import IndexRelayError, suggestion
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.schemas.versions import Check

KIND: Final = f"{__name__}:Breakable"
COLLECTION: Final = "docstrings"
VECTOR_INDEX: Final = "meanings"
TEXT_INDEX: Final = "words"
SEARCH: Final = "both"
EMBEDDER: Final = "indexrelay.console.demo.embedding:embed"
FILTERABLE: Final = {"place": "keyword", "kind": "keyword"}
COMPONENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    VECTOR_INDEX: {"kind": "vector_index", "from": COLLECTION},
    TEXT_INDEX: {"kind": "text_index", "from": COLLECTION},
    SEARCH: {"kind": "search", "from": COLLECTION},
    "map": {"kind": "projection", "from": COLLECTION},
    "map_cache": {
        "kind": "json_cache",
        "from": ["map", COLLECTION],
        "function": "indexrelay.components.json_cache.map_points:map_points",
    },
    "embeddings": {"kind": "embedding_cache", "from": COLLECTION},
}


def declare(
    data_dir: Path,
    *,
    namespace: str,
    dimension: int,
    breakable: str | None,
    environ: Mapping[str, str],
) -> tuple[Path, Settings]:
    """Write ``indexrelay.toml`` into ``data_dir``, and read it as every command does.

    Args:
        data_dir: where everything of this installation goes.
        namespace: of the keys in Redis.
        dimension: of the vectors.
        breakable: the component whose build is to fail once; see `marker`.
        environ: the variables that the demo's processes have.
    """
    tables: dict[str, Mapping[str, Any]] = {
        f"collections.{COLLECTION}": {
            "dimension": dimension,
            "metric": "cosine",
            "filterable": FILTERABLE,
            "embedder": EMBEDDER,
        },
    }
    for name, definition in COMPONENTS.items():
        tables[f"components.{name}"] = (
            _broken(definition, data_dir) if name == breakable else definition
        )
    file = data_dir / "indexrelay.toml"
    file.write_text(_toml({"namespace": namespace, "data_dir": "."}, tables), encoding="utf-8")
    return file, load_settings(file, environ=environ, check_kind=check_kind)


def check_component(name: str | None) -> None:
    """Refuse a component to break that the demo does not have.

    Raises:
        CommandError: with the one that may have been meant.
    """
    if name is not None and name not in COMPONENTS:
        near = suggestion(name, COMPONENTS)
        raise CommandError(f"--fail: the demo has no component {name!r}{near}")


def marker(data_dir: Path) -> Path:
    """While this file exists, the breakable component's builds fail."""
    return data_dir / "fail-next-build"


class BreakableParameters(KindParameters):
    """What to build, and when not to."""

    wraps: str
    """The installed kind that does the work."""
    marker: Path
    """While this file exists every build raises."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The parameters of that kind."""


class Breakable(Kind[BreakableParameters, Served]):
    """Builds, verifies and loads by another kind."""

    preload: ClassVar[tuple[str, ...]] = (
        "faiss",
        "sklearn.decomposition",
        "sklearn.manifold",
        "sklearn.neighbors",
        "threadpoolctl",
    )
    """What any of the demo's kinds imports, since a parameter says which of them it is."""

    def __init__(self, parameters: BreakableParameters) -> None:
        super().__init__(parameters)
        self._marker = parameters.marker
        inner = kind_class(parameters.wraps)
        self._inner: Kind[Any, Any] = inner(inner.Parameters.model_validate(parameters.settings))

    def build(self, job: Job) -> Built:
        """As the other kind, unless the marker is there."""
        if self._marker.exists():
            raise StagedFaultError
        return self._inner.build(job)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """As the other kind."""
        return self._inner.verify(job, built, files)

    def load(self, files: Mapping[str, Path]) -> Served:
        """As the other kind."""
        served: Served = self._inner.load(files)
        return served


class StagedFaultError(IndexRelayError):
    """Raised in the build that ``--fail`` asks for; the next batch heals it."""

    def __init__(self) -> None:
        super().__init__("a fault that --fail asked for; the next batch heals it")


def _broken(definition: Mapping[str, Any], data_dir: Path) -> dict[str, Any]:
    parameters = {key: value for key, value in definition.items() if key not in ("kind", "from")}
    return {
        "kind": KIND,
        "from": definition["from"],
        "marker": str(marker(data_dir).absolute()),
        "wraps": definition["kind"],
        "settings": parameters,
    }


def _toml(top: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> str:
    """TOML of strings, numbers, lists of strings and flat inner tables, which is all it takes."""
    lines = [f"{key} = {_value(value)}" for key, value in top.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + "}"
    # A JSON string, number or list of strings is also TOML.
    return json.dumps(value, ensure_ascii=False)
