"""Readers in forked children: a web server that loads the application once and forks its workers.

Threads do not survive a fork, and neither do the locks that they held. So each reader makes its
locks anew in the child, whether it was started or not, and one that ran starts its thread again. It
is a process of its own under the same id (`indexrelay.streams.identity`). What is served already is
served on, since the mapped pages are shared.

FAISS needs one thing more. A thread that searched a batch on several OpenMP threads keeps a team of
them; in a forked child the team has gone, and the next batch search on that thread waits for it for
ever. With one OpenMP thread no team is asked for. The setting belongs to a thread, and the one that
forked is the only one there is in the child; threads that are started there begin without a team.
"""

import sys


def use_one_openmp_thread() -> None:
    """Keep batch searches on this thread from asking for a team, where FAISS is loaded."""
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)
