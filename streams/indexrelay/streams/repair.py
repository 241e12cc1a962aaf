"""Repair of a server by hand, as a user who may do more than a rebuilder.

A rebuilder mends keys by itself. This does the same where none runs or none may, and what no key
shows: a script or function that does not end (the server then answers nobody), and scripts or
functions that take more memory than any of ours. `look` says what would be done and `carry_out`
does one of it, so that a person sees it before. Nothing is lost by any of it: all of a server's
keys may be wiped at any time, and scripts are given to it again when they are needed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from redis.exceptions import ResponseError

from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import UnkillableScriptError
from indexrelay.streams.keys import Keys
from indexrelay.streams.memory import server_memory
from indexrelay.streams.passing import refusal_code
from indexrelay.streams.wrong_keys import Remedy, WrongKey, find_wrong_keys, mend

MAX_SCRIPT_BYTES: Final = 16_777_216
"""Of the scripts, and of the functions, that a server keeps; ours take a few thousand."""

_HOW: Final = {
    Remedy.ASIDE: "set it aside for a week, or delete it if it is large",
    Remedy.DELETE: "delete",
    Remedy.SHORTEN: "remove its oldest entries",
    Remedy.END: "give it an end",
}


class Action(StrEnum):
    """What is done in one step."""

    END_SCRIPT = "end_script"
    MEND_KEY = "mend_key"
    FLUSH_SCRIPTS = "flush_scripts"
    FLUSH_FUNCTIONS = "flush_functions"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that is wrong, and what is to be done about it."""

    action: Action
    what: str
    how: str
    wrong: WrongKey | None = None
    """The key that is mended."""


class Repair:
    """One server of one installation; for use by one thread."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        limits: RebuilderSettings,
        *,
        components: Iterable[str],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._limits = limits
        self._components = tuple(components)

    def look(self) -> tuple[Step, ...]:
        """What is to be done. While a script runs, nothing else can be seen.

        Raises:
            redis.exceptions.RedisError: the server is away, or does not allow to look.
        """
        try:
            return (*self._keys_to_mend(), *self._memory_to_free())
        except ResponseError as error:
            if refusal_code(error) != "BUSY":
                raise
        what = "a script or function runs and does not end, and the server answers nobody"
        return (Step(action=Action.END_SCRIPT, what=what, how="end it"),)

    def carry_out(self, step: Step) -> str:
        """Do it; what was done, as a sentence.

        Raises:
            UnkillableScriptError: the script has written something, so that the server does not
                end it.
            BackendRefusedError, redis.exceptions.RedisError: the server is away, or refused.
        """
        commands: Any = self._connection.commands
        match step.action:
            case Action.END_SCRIPT:
                return self._end_script()
            case Action.FLUSH_SCRIPTS:
                commands.script_flush()
            case Action.FLUSH_FUNCTIONS:
                commands.function_flush()
            case Action.MEND_KEY if step.wrong is not None:
                ttl_seconds = self._limits.presence_ttl_seconds
                return mend(self._connection, self._keys, step.wrong, ttl_seconds=ttl_seconds)
        return f"{step.what}: they were removed"

    def _keys_to_mend(self) -> Iterator[Step]:
        found = find_wrong_keys(
            self._connection, self._keys, self._limits, components=self._components
        )
        for wrong in found:
            yield Step(
                action=Action.MEND_KEY,
                what=f"{wrong}; {wrong.writers}",
                how=_HOW[wrong.remedy],
                wrong=wrong,
            )

    def _memory_to_free(self) -> Iterator[Step]:
        memory = server_memory(self._connection)
        if memory is None:
            return
        for action, kind, size in (
            (Action.FLUSH_SCRIPTS, "scripts", memory.scripts),
            (Action.FLUSH_FUNCTIONS, "functions", memory.functions),
        ):
            if size > MAX_SCRIPT_BYTES:
                yield Step(
                    action=action,
                    what=f"{kind} take {size:,} bytes of the server's memory",
                    how=f"remove all {kind}: whoever needs one gives it to the server again",
                )

    def _end_script(self) -> str:
        commands: Any = self._connection.commands
        for words in (("SCRIPT", "KILL"), ("FUNCTION", "KILL")):
            try:
                commands.execute_command(*words)
            except ResponseError as error:
                code = refusal_code(error)
                if code == "UNKILLABLE":
                    raise UnkillableScriptError from error
                if code in {"NOTBUSY", "BUSY"} or "unknown" in str(error).lower():
                    continue  # it is a function, or it has ended, or the server has none
                raise
            return "the script or function was ended"
        return "the script or function had ended by itself"
