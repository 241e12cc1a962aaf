"""Lets autofaiss choose, build and tune an index over a folder of ``.npy``: ``autofaiss_build.py``.

A question names the folder, the file to write, how many cores there are, and perhaps the index; the
answer is how many seconds it took from the folder to the file, and which index it is. What it
chooses by is left at its defaults: that is how its documentation introduces it.
"""

import logging
import time
from typing import Any

from autofaiss import build_index

from measuring.companion_side import answering


def build(folder: str, file: str, cores: int, index: str | None) -> dict[str, Any]:
    began = time.perf_counter()
    _, told = build_index(
        embeddings=folder,
        index_path=file,
        index_infos_path=f"{file}.json",
        file_format="npy",
        index_key=index,
        metric_type="l2",
        nb_cores=cores,
        verbose=logging.ERROR,
    )
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "index": told["index_key"], "effort": told["index_param"]}


if __name__ == "__main__":
    answering(build)
