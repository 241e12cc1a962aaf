"""``python -m indexrelay.schemas.documents DIR [--check]``."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexrelay.schemas.documents import asyncapi_document, json_schemas


def contents() -> dict[str, str]:
    """Every file by its path below the folder; the same models give the same bytes."""
    documents: dict[str, Any] = {
        f"schemas/{name}.json": schema for name, schema in json_schemas().items()
    }
    documents["asyncapi.json"] = asyncapi_document()
    return {
        path: json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for path, document in documents.items()
    }


def differences(folder: Path) -> Iterator[str]:
    """What a person would have to know to repair it, one sentence for each file."""
    wanted = contents()
    for path, text in wanted.items():
        file = folder / path
        if not file.is_file():
            yield f"{file} is missing"
        elif file.read_text(encoding="utf-8") != text:
            yield f"{file} is not what the models say"
    for file in sorted((folder / "schemas").glob("*.json")):
        if f"schemas/{file.name}" not in wanted:
            yield f"{file} belongs to no model"


def write(folder: Path) -> None:
    """Write every file, and remove the schemas that belong to no model any more."""
    wanted = contents()
    (folder / "schemas").mkdir(parents=True, exist_ok=True)
    for path, text in wanted.items():
        (folder / path).write_text(text, encoding="utf-8")
    for file in (folder / "schemas").glob("*.json"):
        if f"schemas/{file.name}" not in wanted:
            file.unlink()


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` compare; 1 when something differs."""
    parser = argparse.ArgumentParser(
        prog="python -m indexrelay.schemas.documents",
        description="Generate the JSON Schema files and the AsyncAPI document from the models.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where they lie (docs)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    given = parser.parse_args(arguments)
    if not given.check:
        write(given.folder)
        return 0
    found = list(differences(given.folder))
    if found:
        sys.stderr.write("\n".join([*found, "write them anew with: make docs"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
