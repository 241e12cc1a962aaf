"""What a component is made from, where its kind takes exactly one collection."""

from indexrelay.components.errors import UnusableInputError
from indexrelay.components.kind import Job
from indexrelay.storage.entries import SourceSnapshot


def only_collection(job: Job) -> SourceSnapshot:
    """The one collection that the component is made from.

    Raises:
        UnusableInputError: there are several, or a component is among them.
    """
    if len(job.collections) != 1 or job.components:
        given = ", ".join([*job.collections, *job.components])
        raise UnusableInputError(
            f"components.{job.component}.from must name exactly one collection, not: {given}"
        )
    return next(iter(job.collections.values()))
