"""Readers in forked children: a web server that loads the application once and forks its workers.

Threads do not survive a fork, and neither do the locks that they held. So each started reloader is
told in the child, makes its locks anew and starts its thread again, as a reader of its own; what is
served already is served on, since the mapped pages are shared.

FAISS needs one thing more. A thread that searched a batch on several OpenMP threads keeps a team of
them; in a forked child the team has gone, and the next batch search on that thread waits for it for
ever. With one OpenMP thread no team is asked for. The setting belongs to a thread, and the one that
forked is the only one there is in the child; threads that are started there begin without a team.
"""

import os
import sys
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that wishes to know that it is in a forked child."""

    def after_fork_in_child(self) -> None:
        """Called in the child, on its only thread, before anything else runs there."""
        ...


def follow_forks(forked: Forked) -> None:
    """Tell ``forked`` in every child from now on; it is not kept alive by that."""
    reference = weakref.ref(forked)

    def tell() -> None:
        alive = reference()
        if alive is not None:
            use_one_openmp_thread()
            alive.after_fork_in_child()

    os.register_at_fork(after_in_child=tell)


def use_one_openmp_thread() -> None:
    """Keep batch searches on this thread from asking for a team, where FAISS is loaded."""
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)
