"""What a map may be told."""

from typing import Annotated, Literal

from pydantic import Field

from indexrelay.components.kind import KindParameters


class ProjectionParameters(KindParameters):
    """The keys of a ``kind = "projection"`` table."""

    method: Literal["pca", "tsne"] = "pca"
    """``pca``: linear, a second for 100,000 entries; shows the broad directions.
    ``tsne``: shows neighbourhoods; 25 seconds for a first map of 10,000 entries on two cores, 8
    for the next one."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of everything drawn at random. Equal entries, parameters and last map give an equal map; only
    t-SNE of 2,000 entries or more adds up in parallel, in an order that is not always the same."""

    perplexity: Annotated[float, Field(gt=0)] = 30.0
    """t-SNE: about how many neighbours count for each entry. Where there are few entries it is
    lowered to a third of them."""

    iterations: Annotated[int, Field(ge=250)] = 1000
    """t-SNE: steps of a first map."""

    update_iterations: Annotated[int, Field(ge=250)] = 300
    """t-SNE: steps from the last map. Few, since most entries are where they belong."""

    min_trustworthiness: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least share of neighbourhoods that the map may keep (1: all, about 0.5: chance).

    0, so that it is recorded and stops nothing: how far data can be laid flat is a property of the
    data, and an honest map of high-dimensional noise is no reason to keep an outdated one."""

    max_placed: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Entries that may be put into the map that is there, or be gone from it, as a share of those
    that it was laid out from; beyond, all are laid out anew. 0.10: so many cannot change the shape
    of a map much, whatever they are. 0: every change lays the map out anew."""
