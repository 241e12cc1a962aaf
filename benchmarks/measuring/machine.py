"""What a figure was measured on: enough to compare, nothing that names somebody's machine."""

import os
import platform
import sqlite3
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = {
    "faiss": "faiss-cpu",
    "numpy": "numpy",
    "redis-py": "redis",
    "hiredis": "hiredis",
    "pydantic": "pydantic",
    "sqlalchemy": "SQLAlchemy",
}


def machine(servers: dict[str, str]) -> dict[str, Any]:
    """Processor, memory, system and versions; ``servers`` are those that took part."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        # Without what whoever built the kernel put behind its number.
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "libraries": {
            **{name: _version(distribution) for name, distribution in _LIBRARIES.items()},
            "sqlite": sqlite3.sqlite_version,
        },
        "servers": servers,
    }


def load() -> float:
    """How many processes wanted a processor, on average over the last minute.

    Well above 0 before a benchmark starts, it was not alone on the machine.
    """
    return round(os.getloadavg()[0], 2)


def pss(processes: Iterable[int]) -> int:
    """Bytes that processes take together, by their numbers: shared pages count in parts."""
    return sum(_rolled_up(pid, "Pss") for pid in processes)


def anonymous_bytes(process: int) -> int:
    """Bytes of a process that lie in no file: they do not change with who else maps its files."""
    return _rolled_up(process, "Anonymous")


def _rolled_up(pid: int, wanted: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        field, _, value = line.partition(":")
        if field == wanted:
            return 1024 * int(value.split()[0])
    raise RuntimeError(f"the kernel tells no {wanted} of process {pid}")


def rss(pid: int) -> int:
    """Bytes that one process has resident, with what it shares."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu() -> str:
    """The model's name; Linux keeps it in a file, ``platform`` does not look there."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            field, _, value = line.partition(":")
            if field.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    """As installed; ``None``: it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
