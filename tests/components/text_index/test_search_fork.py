"""A forked child searches texts, whatever its parent's threads were doing in SQLite.

In a program of its own: a test process that forks takes much along.
"""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
import numpy as np
from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.database import write_database
from indexrelay.components.text_index.search import TextSearch
from indexrelay.storage.entries import Entries

signal.alarm(80)  # ends this process, whatever hangs
count = 3000
texts = [f"word{row % 50} and text {row} alpha" for row in range(count)]
entries = Entries(
    ids=[f"{row:05d}" for row in range(count)],
    vectors=np.zeros((count, 1), np.float32),
    texts=texts,
    payloads=[None] * count,
)
path = Path(sys.argv[1]) / "texts.db"
write_database(path, [(0, entries)], analyser=Analyser())
served = TextSearch(path)
done = threading.Event()

def search():
    while not done.is_set():
        assert len(served.search("word3 alpha text", k=5)) == 5

threads = [threading.Thread(target=search) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os._exit(0 if len(served.search("word7 alpha", k=5)) == 5 else 1)
    ended = os.waitpid(pid, 0)[1]
    if ended:
        print("a child ended with", ended)
        break
done.set()
for thread in threads:
    thread.join()
served.close()
"""


def test_a_child_that_is_forked_among_searches_can_search(tmp_path: Path) -> None:
    ended = subprocess.run(
        # Python >= 3.12 warns of the very thing that is tried here.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
