"""The processes of one machine: children, their supervisor, the embedded server, and the own end.

`Child` is one ``indexrelay`` command in a process group of its own, so that the terminal's Ctrl-C
does not reach it before its parent has decided the order in which children stop. If the parent is
killed, the kernel sends its children SIGTERM (``PR_SET_PDEATHSIG``). `Supervisor` starts a child
that ended again, with a pause that doubles with every early end. `KeptServer` does the same for the
embedded server. `Stop` turns SIGINT and SIGTERM into a flag that a loop looks at.
"""

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Protocol, Self

from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import TimeoutError as NoAnswerError

from indexrelay.console.errors import ExitCode
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.files import make_private_folder, open_private
from indexrelay.schemas.loggers import get_logger
from indexrelay.streams import parent_death as dying_with_parent
from indexrelay.streams.connection import Connection
from indexrelay.streams.server import EmbeddedServer

log = get_logger(__name__)

_TAIL_BYTES: Final = 2000


class Child:
    """One ``indexrelay`` command in a process of its own.

    `start` must be called on a thread that lives as long as the child is wanted: the kernel ends
    the child when that thread ends. `stop` is synchronous, safe twice and safe before `start`.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        log: Path | None,
        inherits: Sequence[int] = (),
    ) -> None:
        """Describe it.

        Args:
            name: of the process, in logs.
            arguments: of the command.
            environ: its variables.
            log: takes its output; ``None``: that goes to our own stderr.
            inherits: open files that it gets, each under the same number.
        """
        self.name = name
        # -P: a file in the current folder must not take the place of an installed module.
        self._command = [sys.executable, "-P", "-m", "indexrelay.console.main", *arguments]
        self._environ = dict(environ)
        self._log = log
        self._inherits = tuple(inherits)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; ``None``: it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; ``None``: it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.running:
            return
        with contextlib.ExitStack() as stack:
            output = sys.stderr.fileno()
            if self._log is not None:
                make_private_folder(self._log.parent)
                output = stack.enter_context(open_private(self._log, "ab")).fileno()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", dying_with_parent.__file__, str(os.getpid())),
                    *self._command,
                ],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                pass_fds=self._inherits,
            )

    def hang_up(self) -> None:
        """Have it read its settings again: send SIGHUP, and return."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGHUP)

    def ask_to_stop(self) -> None:
        """Send SIGTERM and return; `stop` then waits for the end."""
        if self._process is not None and self.running:
            self._process.terminate()

    def stop(self, *, grace_seconds: float) -> None:
        """Ask it to end; kill its whole group when it has not after ``grace_seconds``."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self.ask_to_stop()
            try:
                process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # A reader has no children; a rebuilder that was killed may have left a build.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def tail(self) -> str:
        """The end of its output; empty when that went to stderr."""
        if self._log is None or not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace").strip()


_LONGEST_SOCKET_BYTES: Final = 100
"""The kernel takes 107 bytes for a socket's path; the rest is for the file's own name."""

REDIS_URL: Final = "INDEXRELAY_REDIS__URL"
"""The variable with the URL of Redis; it may hold a password, so it is no option."""


@dataclass(frozen=True, kw_only=True)
class RoleSettings:
    """What all children of one parent share."""

    config: Path | None
    """``None``: found by the child as by its parent, whose folder and variables it has."""
    environ: Mapping[str, str]
    """The children's variables; one of them is the URL of Redis."""
    logs: Path | None
    """The folder for their logs; ``None``: our own stderr."""

    @property
    def options(self) -> list[str]:
        """The command-line options that all of them take."""
        return [] if self.config is None else ["--config", str(self.config)]

    def log(self, name: str) -> Path | None:
        """The log file of the child ``name``."""
        return None if self.logs is None else self.logs / f"{name}.log"


def rebuilder_child(shared: RoleSettings) -> Child:
    """The rebuilder."""
    return Child(
        "rebuilder",
        ["rebuilder", *shared.options],
        environ=shared.environ,
        log=shared.log("rebuilder"),
    )


def operator_child(shared: RoleSettings) -> Child:
    """The operator."""
    return Child(
        "operator",
        ["operator", *shared.options],
        environ=shared.environ,
        log=shared.log("operator"),
    )


def admin_child(shared: RoleSettings, *, port: int) -> Child:
    """The admin page, on a port of the address that the settings say."""
    return Child(
        "admin",
        ["admin", "--port", str(port), *shared.options],
        environ=shared.environ,
        log=shared.log("admin"),
    )


def free_port(host: str, wanted: int) -> int:
    """``wanted``, if nobody listens there; else one that is free.

    Raises:
        OSError: the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, wanted))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            trial.bind((host, 0))
        return int(trial.getsockname()[1])


def reader_child(
    shared: RoleSettings, reader_id: str, *, socket: Path | None = None, port: int | None = None
) -> Child:
    """A reader service on a unix socket, or on a port of the loopback address."""
    address = ["--uds", str(socket)] if socket is not None else ["--port", str(port)]
    return Child(
        reader_id,
        ["reader", "--id", reader_id, *shared.options, *address],
        environ=shared.environ,
        log=shared.log(reader_id),
    )


@dataclass(frozen=True, kw_only=True)
class WorkerSeat:
    """What a worker gets from its parent, as one argument of its command."""

    number: int
    listener: int
    """The open file of the socket that it takes connections from."""
    board: Path
    """The folder that it shares with the other workers."""

    def __str__(self) -> str:
        return f"{self.number}:{self.listener}:{self.board}"

    @classmethod
    def of(cls, argument: str) -> Self:
        """Read the argument.

        Raises:
            ValueError: it is none.
        """
        number, listener, board = argument.split(":", 2)
        return cls(number=int(number), listener=int(listener), board=Path(board))


def worker_child(
    shared: RoleSettings, reader_id: str, seat: WorkerSeat, *, insecure: bool
) -> Child:
    """One of the workers of a reader."""
    insist = ["--insecure"] if insecure else []
    return Child(
        f"{reader_id}, worker {seat.number}",
        ["reader", "--id", reader_id, *shared.options, "--seat", str(seat), *insist],
        environ=shared.environ,
        log=shared.log(f"{reader_id}-{seat.number}"),
        inherits=(seat.listener,),
    )


def socket_folder(data_dir: Path) -> Path:
    """A folder for unix sockets that only we can enter: in the data folder, if its path is short.

    Otherwise it is a new one among the temporary files, and the caller removes it.
    """
    folder = data_dir / "sockets"
    if len(os.fsencode(folder)) > _LONGEST_SOCKET_BYTES - len("/reader-99.sock"):
        return Path(tempfile.mkdtemp(prefix="indexrelay-"))
    make_private_folder(folder)
    return folder


FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
SETTLED_SECONDS: Final = 60.0
"""A child that lived this long has started well: its next end counts as the first."""


class Supervised(Protocol):
    """What is supervised: a `Child`."""

    name: str

    @property
    def running(self) -> bool:
        """Whether it runs."""
        ...

    @property
    def exit_code(self) -> int | None:
        """How it ended."""
        ...

    def start(self) -> None:
        """Start it."""
        ...

    def ask_to_stop(self) -> None:
        """Ask it to stop, without waiting."""
        ...

    def stop(self, *, grace_seconds: float) -> None:
        """Stop it; safe twice and before `start`."""
        ...


@dataclass(kw_only=True)
class _Watched:
    child: Supervised
    started: float = 0.0
    early_ends: int = 0
    restarts: int = 0
    restart_at: float | None = None


def stop_together(children: Sequence[Supervised], *, grace_seconds: float) -> None:
    """Ask all, then wait for each: as long as the slowest takes, not as long as all of them."""
    for child in children:
        child.ask_to_stop()
    for child in children:
        child.stop(grace_seconds=grace_seconds)


class Supervisor:
    """Starts children stage by stage, restarts those that end, stops the last stage first."""

    def __init__(self, *stages: Sequence[Supervised], clock: Clock) -> None:
        self._stages = [[*stage] for stage in stages]
        self._watched = [_Watched(child=child) for stage in stages for child in stage]
        self._clock = clock

    @property
    def restarts(self) -> dict[str, int]:
        """How many times each child was started again."""
        return {watched.child.name: watched.restarts for watched in self._watched}

    def start(self) -> None:
        """Start every child, in the order given."""
        for watched in self._watched:
            self._start(watched)

    def look(self) -> None:
        """Plan the restart of each that ended, start each whose pause is over; for every loop."""
        now = self._clock.monotonic()
        for watched in self._watched:
            if watched.child.running:
                continue
            if watched.restart_at is None:
                self._plan_restart(watched, now)
            elif now >= watched.restart_at:
                watched.restarts += 1
                self._start(watched)

    def restart(self, child: Supervised, *, grace_seconds: float) -> None:
        """Stop one of them, and start it again at once."""
        for watched in self._watched:
            if watched.child is child:
                child.stop(grace_seconds=grace_seconds)
                watched.restarts += 1
                self._start(watched)

    def add(self, child: Supervised) -> None:
        """Start one more, of the first stage."""
        self._stages[0].append(child)
        self._watched.append(_Watched(child=child))
        self._start(self._watched[-1])

    def drop(self, child: Supervised, *, grace_seconds: float) -> None:
        """Stop one of them for good; nothing where it is none of them."""
        child.stop(grace_seconds=grace_seconds)
        self._watched = [each for each in self._watched if each.child is not child]
        self._stages = [[each for each in stage if each is not child] for stage in self._stages]

    def stop(self, *, grace_seconds: float) -> None:
        """Stop every child, the last stage first; each child gets ``grace_seconds``."""
        for stage in reversed(self._stages):
            stop_together(stage, grace_seconds=grace_seconds)

    def _start(self, watched: _Watched) -> None:
        watched.child.start()
        watched.started = self._clock.monotonic()
        watched.restart_at = None
        log.info("process.started", process=watched.child.name, restarts=watched.restarts)

    def _plan_restart(self, watched: _Watched, now: float) -> None:
        early = now - watched.started < SETTLED_SECONDS
        watched.early_ends = watched.early_ends + 1 if early else 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (watched.early_ends - 1), LONGEST_PAUSE_SECONDS)
        watched.restart_at = now + pause
        log.warning(
            "process.ended",
            process=watched.child.name,
            exit_code=watched.child.exit_code,
            restart_in_seconds=pause,
        )


LOOK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 2.0
"""How long one answer may take; a stop waits no longer than that for it."""
SILENT_LOOKS: Final = 5
"""So many looks without an answer: fewer may be a busy server, or a machine that was asleep."""


class KeptServer:
    """Starts the server of ``data_dir``, or finds the running one, and keeps it running.

    Nothing new is built without the server, and on one machine nobody else would start it again.
    One that refuses, or does not answer for a while, is stopped and started again: it may still
    run, cut off from a folder that somebody removed. Where that fails, the pause before the next
    attempt doubles.
    """

    def __init__(self, data_dir: Path, *, clock: Clock) -> None:
        self._server = EmbeddedServer(data_dir)
        self._clock = clock
        self._url = ""
        self._next_look = 0.0
        self._failures = 0
        self._silent = 0

    def start(self) -> str:
        """Start it; returns its URL.

        Raises:
            NoServerError, ServerStartError: there is none, or it does not come up.
        """
        self._url = self._server.start()
        self._next_look = self._clock.monotonic() + LOOK_SECONDS
        return self._url

    def look(self) -> None:
        """Start it again if it does not answer; call it about once a second, or more often."""
        if self._clock.monotonic() < self._next_look:
            return
        if not self._answers():
            self._restart()
        pause = min(LOOK_SECONDS * 2**self._failures, LONGEST_PAUSE_SECONDS)
        self._next_look = self._clock.monotonic() + pause

    def stop(self) -> None:
        """Stop it if this process started it; safe twice and before `start`."""
        self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        with Connection.open(self._url, timeout_seconds=ANSWER_SECONDS) as connection:
            try:
                connection.commands.ping()
            except BusyLoadingError:
                return True  # it reads its file, and will answer
            except NoAnswerError:
                self._silent += 1
                return self._silent < SILENT_LOOKS
            except RedisError:
                return False
        self._silent = 0
        return True

    def _restart(self) -> None:
        log.warning("server.away")
        self._silent = 0
        try:
            self._server.stop()
            self._url = self._server.start()
        except (IndexRelayError, OSError) as error:
            self._failures += 1
            log.warning("server.not_restarted", error=str(error))
        else:
            self._failures = 0
            log.info("server.restarted")


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Takes SIGINT and SIGTERM for the length of a ``with`` block, on the main thread.

    The first signal asks to stop, and wakes `wait` at once. A second Ctrl-C changes nothing:
    stopping is bounded in time, and to cut it short would leave things behind. The flag travels
    through a pipe, since a signal may arrive while any lock is held. With ``interrupt``, for a
    command that works rather than waits, the first signal is raised as `KeyboardInterrupt`.
    """

    def __init__(self, *, interrupt: bool = False) -> None:
        self._interrupt = interrupt
        self._received: int | None = None
        self._before: dict[int, signal._HANDLER] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal arrived."""
        return self._received is not None

    @property
    def exit_code(self) -> ExitCode:
        """What a command that was cut short exits with."""
        return ExitCode.TERMINATED if self._received == signal.SIGTERM else ExitCode.INTERRUPTED

    @property
    def role_exit_code(self) -> ExitCode:
        """What a role exits with: it runs until SIGTERM, so that is a success."""
        return ExitCode.SUCCESS if self._received == signal.SIGTERM else ExitCode.INTERRUPTED

    def wait(self, seconds: float) -> bool:
        """Wait until asked to stop, at most that long; returns whether it was."""
        if not self.asked:
            select.select([self._reading], [], [], seconds)
        return self.asked

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._reading)
        os.close(self._writing)

    def _take(self, number: int, _: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            os.write(self._writing, b"\0")
            if self._interrupt:
                raise KeyboardInterrupt
