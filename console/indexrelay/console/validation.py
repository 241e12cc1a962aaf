"""The validation of what is released now: ``indexrelay maintenance validate``.

A version passed its gates when it was built, on the host that built it, by the limits of that day.
Here it is judged as it lies on disk today: every byte is hashed again, each kind opens it and
measures what it can without the source, by the limits of today. Nothing is changed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from indexrelay.components.kind import Kind
from indexrelay.components.registry import kind_class, kind_of
from indexrelay.console import figures
from indexrelay.console.commands.status import passed_mark
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Check, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore

Read = Callable[[int], bool]


class Validated(BaseModel):
    """What was found of one released version."""

    model_config = ConfigDict(frozen=True)

    version: str
    valid: bool
    checks: tuple[Check, ...]


def validated(
    store: ArtifactStore,
    name: str,
    version: str,
    definition: ComponentDefinition | None,
    *,
    read: Read = lambda _bytes: True,
) -> Validated:
    """Judge one released version.

    Args:
        store: where its files are.
        name: its component.
        version: its id.
        definition: what the settings say of the component, whose limits hold; ``None``: it is not
            declared any more, and is judged by those that it was built with.
        read: called with the bytes that were hashed, as `ArtifactStore.recheck_blob` does.
    """
    checks: list[Check] = []
    try:
        manifest = store.version(name, version)
        checks += (_reads_back(store, file, manifest, read) for file in sorted(manifest.files))
        if all(check.passed for check in checks):
            kind, gates = _judge(manifest, definition)
            opened = store.open_version(name, version)
            checks += kind.validate(opened.files, manifest, gates)
    except ArtifactError as error:
        checks.append(Check(name="reads_back", passed=False, detail=str(error)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a gate that raises has failed
        checks.append(Check(name="validate", passed=False, detail=describe_error(error)))
    return Validated(
        version=version, valid=all(check.passed for check in checks), checks=tuple(checks)
    )


def _reads_back(store: ArtifactStore, file: str, manifest: VersionManifest, read: Read) -> Check:
    blob = manifest.files[file]
    try:
        store.recheck_blob(blob, go_on=read)
    except ArtifactError as error:
        return Check(name="bytes", passed=False, detail=f"{file}: {error}", blob=blob.digest)
    return Check(name="bytes", passed=True, measured=blob.size, blob=blob.digest)


def _judge(
    manifest: VersionManifest, definition: ComponentDefinition | None
) -> tuple[Kind[Any, Any], GateSettings]:
    """Who judges a version, and by which limits of its table."""
    if definition is not None and definition.kind == manifest.kind:
        return kind_of(definition), definition.gates
    kind = kind_class(manifest.kind)
    return kind(kind.Parameters.model_validate(manifest.parameters)), GateSettings()


def validation_sheet(found: Mapping[str, Validated]) -> Sheet:
    """One row for each check."""
    sheet = Sheet(
        "Validation",
        flowing("component"),
        whole(""),
        flowing("check"),
        number("measured"),
        number("limit"),
        flowing("detail"),
    )
    for name, each in found.items():
        for index, check in enumerate(each.checks):
            sheet.add(
                "" if index else name,
                passed_mark(check.passed),
                check.name,
                figures.measured(check.name, check.measured),
                figures.measured(check.name, check.limit),
                check.detail,
                end_section=index == len(each.checks) - 1,
            )
    return sheet
