"""What the browser's installation indexes: texts of a few topics, and hostile ones among them.

The settings name this module: it is imported by jobs, builds and readers, so it imports nothing of
the tests.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSION = 16
COUNT = 240
TOPICS: Mapping[str, tuple[str, ...]] = {
    "harbour": ("ship", "anchor", "tide", "crane", "pilot"),
    "orchard": ("apple", "branch", "bee", "harvest", "ladder"),
    "railway": ("train", "signal", "track", "station", "whistle"),
    "bakery": ("bread", "oven", "flour", "dough", "crust"),
    "theatre": ("stage", "curtain", "actor", "applause", "mask"),
    "mountain": ("ridge", "glacier", "hut", "rope", "summit"),
}
MARKUP = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'
CONTROLS = "line\x1b[31m red\x07 bell \x00 null \u202e reversed \u2066 isolated"
MEGABYTE = "m" * (1 << 20)
WAIT = "wait"
HOSTILE: Mapping[str, str] = {
    f"markup {MARKUP}": f"{MARKUP} ship",
    f"controls {CONTROLS}".replace("\x00", ""): f"{CONTROLS} ship".replace("\x00", ""),
    "javascript:window.broken=1//megabyte": f"ship {MEGABYTE}",
}
"""Texts by their ids."""


def texts() -> dict[str, str]:
    """The harmless texts by their ids; each has three words of its topic and a number."""
    found = {}
    for number in range(COUNT):
        topic = list(TOPICS)[number % len(TOPICS)]
        words = TOPICS[topic]
        chosen = [words[(number // len(TOPICS) + step) % len(words)] for step in range(3)]
        found[f"{topic}-{number:03d}"] = f"{' '.join(chosen)} number {number}"
    return found


def payload(entry_id: str, text: str) -> dict[str, Any]:
    """The payload of one entry; of a hostile one it is as hostile as the text."""
    topic = entry_id.partition("-")[0]
    if topic in TOPICS:
        return {"topic": topic, "length": len(text)}
    return {"topic": MARKUP, "length": len(text), "title": text, MARKUP: [{"deep": CONTROLS}]}


def embed(given: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of ``given``, shape ``(n, DIMENSION)``: each word points somewhere, topics apart."""
    vectors = np.full((len(given), DIMENSION), 1e-3, np.float32)
    for row, text in enumerate(given):
        for word in text[:1000].split():
            vectors[row] += 0.3 * _direction(word)
            for topic in (each for each, words in TOPICS.items() if word in words):
                vectors[row] += _direction(topic)
    return vectors


def listed(inputs: Mapping[str, Any], *, breaks: str) -> list[str]:
    """A document for a JSON cache: the topics.

    It waits for as long as the file ``breaks`` is there and says `WAIT`, and fails where it says
    something else.

    Raises:
        RuntimeError: with what the file says.
    """
    file = Path(breaks)
    while file.exists():
        words = file.read_text(encoding="utf-8")
        if words != WAIT:
            raise RuntimeError(words)
        time.sleep(0.02)
    return sorted(TOPICS)


def _direction(word: str) -> NDArray[np.float32]:
    digest = hashlib.blake2b(word.encode(), digest_size=DIMENSION).digest()
    return (np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5) / 127.5
