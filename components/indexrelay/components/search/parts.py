"""A component that consists of others: its files are those of all parts, each by its own kind.

A part is built, verified and loaded by its kind as if it were a component of its own; it sees its
own files, its own earlier version and a folder of its own. What belongs to the part ``text`` has
``text.`` before its name in the version: files and checks. The version's details keep what the part
said of itself. So parts are always of one version, and no group is needed to flip them together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from indexrelay.components.kind import Built, Files, Goal, Job, Kind, PreviousVersion
from indexrelay.components.served import VersionFiles
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest

PARTS: Final = "parts"
"""The key of a version's details under which those of its parts are."""
T = TypeVar("T")


class PartFacts(BaseModel):
    """What one part's build gave, besides its files; kept in the version's details."""

    model_config = ConfigDict(frozen=True)

    entries: NonNegativeInt
    counts: dict[str, NonNegativeInt]
    extends: bool
    details: dict[str, Any]

    @property
    def build(self) -> tuple[str, str]:
        """How it was built and why; empty where its kind does not say."""
        build = self.details.get("build")
        build = build if isinstance(build, dict) else {}
        return str(build.get("mode", "")), str(build.get("reason", ""))


@dataclass(frozen=True)
class Part:
    """One part, and the kind that makes it."""

    name: str
    """In the names of its files; the key of its table of parameters."""
    kind: Kind[Any, Any]

    def build(self, job: Job, *, start: float, end: float) -> Built:
        """Build it in a folder of its own.

        ``start`` and ``end`` are the shares of the whole build between which this one lies.
        """

        def progress(share: float) -> None:
            job.progress(start + (end - start) * share)

        own = self.job(job)
        return self.kind.build(replace(own, progress=progress))

    def verify(self, job: Job, built: Built, files: Files) -> Iterator[Check]:
        """What its kind finds of its files; ``built`` is the whole version's."""
        facts = facts_of(built.details)[self.name]
        own = Built(
            files=_own(self.name, built.files),
            entries=facts.entries,
            counts=facts.counts,
            extends=facts.extends,
            details=facts.details,
        )
        for check in self.kind.verify(self.job(job), own, self.files(files)):
            yield check.model_copy(update={"name": labelled(self.name, check.name)})

    def validate(
        self, files: Files, manifest: VersionManifest, asked: GateSettings
    ) -> Iterator[Check]:
        """What its kind finds of a released version by itself; ``manifest`` is the whole one's."""
        own = part_of(self.name, manifest)
        for check in self.kind.validate(self.files(files), own, asked):
            yield check.model_copy(update={"name": labelled(self.name, check.name)})

    def job(self, job: Job) -> Job:
        """The job as its kind sees it."""
        workdir = job.workdir / self.name
        workdir.mkdir(exist_ok=True)
        previous = job.previous
        if previous is not None:
            previous = PreviousVersion(
                manifest=part_of(self.name, previous.manifest), files=self.files(previous.files)
            )
        own = replace(job, workdir=workdir, previous=previous)
        if job.goal is Goal.IMPROVEMENT and not self.kind.has_quick_versions:
            # There is nothing to improve about it: it goes on.
            return replace(own, goal=Goal.BEST, from_scratch=False)
        return own

    def files(self, files: Files) -> VersionFiles:
        """Of the files on disk those of this part; one that is missing is corruption."""
        return VersionFiles(_own(self.name, files))


def part_of(name: str, manifest: VersionManifest) -> VersionManifest:
    """A version of the whole, as one of a part alone."""
    facts = facts_of(manifest.details)[name]
    prefix = labelled(name, "")
    return manifest.model_copy(
        update={
            "parameters": manifest.parameters.get(name, {}),
            "files": _own(name, manifest.files),
            "entries": facts.entries,
            "counts": facts.counts,
            "checks": tuple(
                check.model_copy(update={"name": check.name.removeprefix(prefix)})
                for check in manifest.checks
                if check.name.startswith(prefix)
            ),
            "details": facts.details,
        }
    )


def labelled(part: str, name: str) -> str:
    """What the whole calls a file or a check of a part."""
    return f"{part}.{name}"


def _own(part: str, values: Mapping[str, T]) -> dict[str, T]:
    """Of values of the whole those of a part, under its own names."""
    prefix = labelled(part, "")
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def facts_of(details: Mapping[str, Any]) -> dict[str, PartFacts]:
    """What the details of a version say of each part."""
    return {name: PartFacts.model_validate(facts) for name, facts in details[PARTS].items()}


def together(parts: Mapping[Part, Built]) -> Built:
    """One version of all parts.

    It continues the last one where any of them does: if a gate then fails, all are built in full.
    What several count has to be the same, since they are made from the same entries.
    """
    facts = {
        part.name: PartFacts(
            entries=built.entries,
            counts=dict(built.counts),
            extends=built.extends,
            details=built.details,
        )
        for part, built in parts.items()
    }
    files: dict[str, Path | BlobRef] = {}
    counts: dict[str, int] = {}
    for part, built in parts.items():
        files |= {labelled(part.name, name): file for name, file in built.files.items()}
        counts |= built.counts
    return Built(
        files=files,
        entries=max(built.entries for built in parts.values()),
        counts=counts,
        extends=any(built.extends for built in parts.values()),
        details={
            "build": _how_built(facts),
            PARTS: {name: each.model_dump(mode="json") for name, each in facts.items()},
        },
    )


def _how_built(facts: Mapping[str, PartFacts]) -> dict[str, Any]:
    """For the details of the version: how it was built and why, part by part where they differ."""
    found = {name: each.build for name, each in facts.items()}
    mode = "incremental" if any(each.extends for each in facts.values()) else "full"
    if len(set(found.values())) == 1:
        ((_, reason),) = set(found.values())
    else:
        reason = "; ".join(f"{name} {how}: {why}" for name, (how, why) in found.items())
    return {"mode": mode, "reason": reason}


def halves_of(
    manifest: VersionManifest,
) -> Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Details and parameters of each half of a search component; else, unnamed, its own."""
    parts = manifest.details.get(PARTS)
    if not isinstance(parts, Mapping):
        return {"": (manifest.details, manifest.parameters)}
    return {
        name: (part["details"], manifest.parameters.get(name, {})) for name, part in parts.items()
    }
