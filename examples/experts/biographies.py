"""The folder of biographies: a file for each field, and in it a paragraph for each expert.

The first line of a paragraph is the expert's name and city, what follows is the biography.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Biography:
    """What is known of one expert."""

    name: str
    city: str
    field: str
    """As the file is called."""
    text: str

    @property
    def id(self) -> str:
        """The name, which no two of them share."""
        return self.name


def read(folder: Path) -> Iterator[Biography]:
    """Every biography of ``folder``, by field.

    Raises:
        ValueError: a paragraph has no line with a name and a city.
    """
    for file in sorted(folder.glob("*.txt")):
        for paragraph in file.read_text(encoding="utf-8").strip().split("\n\n"):
            heading, _, text = paragraph.partition("\n")
            name, comma, city = heading.partition(", ")
            if not comma or not text:
                raise ValueError(f"{file.name}: no name and city, or no text: {paragraph[:60]!r}")
            yield Biography(name=name, city=city, field=file.stem, text=" ".join(text.split()))
