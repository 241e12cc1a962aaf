"""Does asking by meaning and by words at once find better than either?

The texts are docstrings of the standard library and of every installed package. Of each the first
sentence is taken off and asked for as a question, by its words and by its embedding at once; the
rest of the docstring is what should come first. One `search` component holds the rests, with the
demo's static word vectors, and answers by vector alone, by words alone, and by both. Quality is
nDCG@10: each question has one right answer, which counts 1 / log2(1 + its rank).
"""

import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from indexrelay.components.golden import GoldenQuery
from indexrelay.components.kind import Job
from indexrelay.components.search import HybridIndex, HybridIndexParameters, HybridSearch
from indexrelay.components.search.weights import SHARES, Learning
from indexrelay.components.served import Hit
from indexrelay.console.demo.corpus import standard_library
from indexrelay.console.demo.embedding import Embedding
from indexrelay.console.errors import CorpusError
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, Vectors
from measuring.arrays import COLLECTION, ArrayCollection, entry_id
from measuring.findings import Figure, Findings, Measured, at_least, at_most
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.rounds import interleaved

CAVEATS = """\
- One answer counts as right, though others may answer as well: packages repeat each other's
  docstrings. That costs all sides the same.
- A docstring counts if its first sentence has 20 to 300 characters and does not come up again in
  the rest, of which 100 to 1,000 characters are taken; equal sentences and equal rests count once.
- The vectors are sums of static word vectors, and find much less here than words do. With a
  sentence encoder, whose vectors find as much as words do, there is more to gain.
- Weights are equal but for "weights learned on others": there every second question is a golden
  query, by which weights are chosen as a build chooses them, and the other questions are judged,
  against the better half on the same questions.
- "The best weights of each question" is the bound: nobody knows them before the answer.
- A ratio differs from one sample of questions to the next: the standard error beside it is that of
  resampling these questions. Of 1,000 it is 0.012, so 3,000 are asked.
- Seconds are of one query at a time on one thread, with its payloads.
"""
QUESTIONS, QUICK_QUESTIONS = 3_000, 200
TIMED = 100
K = 10
QUICK_FOLDER = "asyncio"
BY_VECTOR, BY_WORDS = "by vector", "by words"
BY_RANKS, BY_SCORES = "both, ranks fused", "both, scores fused"
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(\[])|\n\s*\n")
_EMBEDDED_AT_ONCE: Final = 20_000
_SEED: Final = 31
_RESAMPLED: Final = 300
Ask = Callable[[int], Sequence[Hit]]
"""The hits for the question of that number."""


@dataclass(frozen=True)
class Passages:
    """Questions, and what each should find; row for row."""

    questions: list[str]
    texts: list[str]


def passages(*, quick: bool) -> Passages:
    """The docstrings of this installation, in an order drawn once."""
    stdlib, purelib = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
    found: dict[str, str] = {}
    taken: set[str] = set()
    for root in (stdlib / QUICK_FOLDER,) if quick else (stdlib, purelib):
        try:
            documents = standard_library(root).documents
        except CorpusError:
            continue
        for document in documents:
            first, *others = _SENTENCE.split(document.text, maxsplit=1)
            question, text = " ".join(first.split()), " ".join(" ".join(others).split())[:1_000]
            if not 20 <= len(question) <= 300 or len(text) < 100 or question in found:
                continue
            if text in taken or question.rstrip(".").lower() in text.lower():
                continue
            found[question] = text
            taken.add(text)
    order = np.random.default_rng(_SEED).permutation(len(found)).tolist()
    questions, texts = list(found), list(found.values())
    return Passages([questions[row] for row in order], [texts[row] for row in order])


@dataclass(frozen=True, kw_only=True)
class PassageCollection(ArrayCollection):
    """The passages as a build reads them."""

    metric: Metric = Metric.COSINE
    texts: list[str] = field(default_factory=list)

    def _entries(self, places: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Entries:
        rows = places.tolist()
        return Entries(
            ids=[entry_id(row) for row in rows],
            vectors=np.ascontiguousarray(self.vectors[places]),
            texts=[self.texts[row] for row in rows],
            payloads=[f'{{"row":{row}}}' for row in rows],
        )


def built(folder: Path, collection: PassageCollection) -> HybridSearch:
    """A version of a `search` component over it, loaded; without the gates."""
    kind = HybridIndex(HybridIndexParameters())
    made = kind.build(
        Job(
            component="find",
            collections={COLLECTION: collection},
            components={},
            previous=None,
            workdir=folder,
            threads=2,
            progress=lambda _share: None,
        )
    )
    return kind.load({name: Path(str(file)) for name, file in made.files.items()})


def gains(ask: Ask, questions: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """nDCG@10 of each question; shape ``(len(questions),)``."""
    found = np.zeros(len(questions))
    for place, row in enumerate(questions):
        ids = [hit.id for hit in ask(row)]
        wanted = entry_id(row)
        if wanted in ids:
            found[place] = 1 / np.log2(2 + ids.index(wanted))
    return found


def standard_error(
    found: np.ndarray[tuple[int], np.dtype[np.float64]],
    beside: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """Of the ratio of two means over the same questions, by resampling these."""
    rows = np.random.default_rng(_SEED).integers(0, len(found), (_RESAMPLED, len(found)))
    return float((found[rows].mean(axis=1) / beside[rows].mean(axis=1)).std())


def measure(asked: Asked) -> Findings:
    asked.say("reading the docstrings of everything that is installed")
    texts = passages(quick=asked.quick)
    number = min(QUICK_QUESTIONS if asked.quick else QUESTIONS, len(texts.questions))
    asked.say(f"embedding {len(texts.texts)} passages and {number} questions")
    embedding = Embedding()
    vectors = _embedded(embedding, texts.texts)
    questions, _ = embedding(texts.questions[:number])
    collection = PassageCollection(vectors=vectors, texts=texts.texts)
    with tempfile.TemporaryDirectory(prefix="indexrelay-bench-") as name:
        asked.say("building")
        with closing(built(Path(name), collection)) as search:
            return _measured(asked, search, texts, questions)


def _embedded(embedding: Embedding, texts: Sequence[str]) -> Vectors:
    starts = range(0, len(texts), _EMBEDDED_AT_ONCE)
    return np.concatenate([embedding(texts[each : each + _EMBEDDED_AT_ONCE])[0] for each in starts])


def _measured(asked: Asked, search: HybridSearch, texts: Passages, vectors: Vectors) -> Findings:
    def both(weight: float, **options: str) -> Ask:
        weights = {"vector": weight}
        return lambda row: search.search(
            vector=vectors[row],
            text=texts.questions[row],
            weights=weights,
            k=K,
            **options,  # type: ignore[arg-type]
        )

    ways: Mapping[str, Ask] = {
        BY_VECTOR: lambda row: search.by_vector.search(vectors[row], k=K),
        BY_WORDS: lambda row: search.by_text.search(texts.questions[row], k=K),
        BY_RANKS: both(1.0, fusion="ranks"),
        BY_SCORES: both(1.0, fusion="scores"),
    }
    rows = range(len(vectors))
    quality = {}
    for name, ask in ways.items():
        asked.say(f"asking {name}")
        quality[name] = gains(ask, rows)
    better = max(BY_VECTOR, BY_WORDS, key=lambda name: float(quality[name].mean()))
    asked.say("learning weights on one half of the questions")
    learning = Learning.of(
        [
            GoldenQuery(
                line=row, grades={entry_id(row): 1}, text=texts.questions[row], vector=vectors[row]
            )
            for row in rows
        ],
        k=K,
        shares=lambda query: search.shares(query.vector, query.text),  # type: ignore[arg-type]
        known=search.__contains__,
    )
    share = float(SHARES[learning.best(slice(0, None, 2))])
    tuned = gains(both(share / (1 - share), fusion="scores"), rows[1::2])
    bound = float(learning.gains.max(axis=1).mean())

    def timed(ask: Ask) -> Callable[[], float]:
        def turn() -> float:
            began = perf_counter()
            for row in rows[:TIMED]:
                ask(row)
            return perf_counter() - began

        return turn

    seconds = interleaved(
        {name: timed(ask) for name, ask in ways.items()}, rounds=asked.rounds, say=asked.say
    )
    count = min(TIMED, len(rows))
    both_halves = [
        a + b for a, b in zip(seconds.seconds[BY_VECTOR], seconds.seconds[BY_WORDS], strict=True)
    ]
    beside = [
        both_ / alone for both_, alone in zip(seconds.seconds[BY_SCORES], both_halves, strict=True)
    ]
    means = {name: float(each.mean()) for name, each in quality.items()}
    best = means[better]
    note = f"{len(search):,} passages, {len(rows):,} questions; the better half is {better}"
    return Findings(
        figures=(
            Figure(
                name="nDCG@10, ranks fused ÷ the better half",
                value=means[BY_RANKS] / best,
                target=at_least(1.05),
                note=note,
            ),
            Figure(
                name="nDCG@10, scores fused ÷ the better half",
                value=means[BY_SCORES] / best,
                target=at_least(1.05),
                note=f"± {standard_error(quality[BY_SCORES], quality[better]):.3f}",
            ),
            Figure(
                name="nDCG@10, scores fused, weights learned on others ÷ the better half",
                value=float(tuned.mean() / quality[better][1::2].mean()),
                target=at_least(1.05),
                note=f"vectors {share:g}, words {1 - share:g}; "
                f"± {standard_error(tuned, quality[better][1::2]):.3f}",
            ),
            Figure(
                name="nDCG@10, scores fused, the best weights of each question ÷ the better half",
                value=bound / best,
            ),
            *(Figure(name=f"nDCG@10, {name}", value=mean) for name, mean in means.items()),
            Figure(
                name="a query by both ÷ one by vector and one by words",
                value=float(np.median(beside)),
                target=at_most(1.5),
            ),
        ),
        measured=tuple(
            Measured(
                name=f"query, {name}",
                unit="ms",
                values=tuple(1000 * each / count for each in seconds.seconds[name]),
            )
            for name in ways
        ),
        plots=(
            Bars(
                name="hybrid",
                title="Docstrings found by their first sentence",
                unit="nDCG@10",
                bars=tuple(means.items()),
            ),
        ),
    )


PROGRAM = Program(name="hybrid", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
