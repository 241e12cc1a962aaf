"""Reads a FAISS file as one does without us, in a process that did nothing else: ``read_index.py``.

The question is ``path``; the answer is how many seconds `faiss.read_index` took. One question for
each process: the second would find warm memory.
"""

import time

import faiss

from measuring.companion_side import answering


def read(path: str) -> dict[str, float]:
    began = time.perf_counter()
    index = faiss.read_index(path)
    seconds = time.perf_counter() - began
    if not index.ntotal:
        raise RuntimeError("nothing was read")
    return {"seconds": seconds}


if __name__ == "__main__":
    answering(read)
