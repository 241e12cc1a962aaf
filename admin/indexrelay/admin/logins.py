"""Logins: a password against its Argon2 hash, and how often somebody may try.

A hash takes 64 MiB and some 50 ms, on purpose. So two are made at a time, on threads of their own,
and who waits for longer than a few seconds is refused: a flood of logins takes neither the memory
nor the event loop. A name that nobody has takes as long as one that somebody has.

Failed logins are counted by the address that they come from, and by the name that they are for,
whether there is such a user or not; those by a token, which nobody guesses, by the address alone.
What is counted is bounded. A user whose name somebody else
tries still gets in from where they last came from.
"""

import base64
import ipaddress
import secrets
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Mapping
from functools import partial
from typing import Final

from argon2 import Parameters, PasswordHasher, extract_parameters
from argon2.exceptions import VerificationError
from argon2.low_level import Type, verify_secret

from indexrelay.schemas.admin import AdminUser
from indexrelay.schemas.clock import Clock
from indexrelay.service.limits import FewThreads
from indexrelay.service.problems import OverloadedError, RefusedError

HASHES: Final = 2
"""That are made at the same time: 128 MiB."""
WAIT_SECONDS: Final = 5.0
"""For which a login waits until its hash is made."""
LEAST_PASSWORD: Final = 8
"""Characters (NIST SP 800-63B, section 5.1.1)."""
MAX_PASSWORD: Final = 1024
"""Characters."""
FAILURES_OF_ADDRESS: Final = 10
"""In a minute; of IPv6 a network of 64 bits counts as one address."""
FAILURES_OF_USER: Final = 50
"""In a quarter of an hour, from everywhere but where that user last logged in from."""
MAX_COUNTED: Final = 10_000
"""Addresses, and names, that are counted; those that were tried last."""
_ADDRESS_SECONDS: Final = 60.0
_USER_SECONDS: Final = 900.0
_MAX_KNOWN: Final = 1000


def password_hash(password: str) -> str:
    """What the settings know of a password: Argon2id with the second recommendation of RFC 9106
    (64 MiB, 3 passes, 4 lanes), which is what argon2-cffi takes by default."""
    return PasswordHasher().hash(_bytes_of(password))


class Passwords:
    """The users of the settings, and their passwords; for one event loop."""

    def __init__(self, users: Mapping[str, AdminUser]) -> None:
        self._hashes = {name: user.password.get_secret_value() for name, user in users.items()}
        self._decoy = _decoy(self._hashes)
        self._threads = FewThreads(HASHES, "logins to check")

    async def are_right(self, user: str, password: str) -> bool:
        """Whether the user has this password; it takes as long where there is no such user.

        Raises:
            RefusedError: too many others are checked now.
        """
        known = self._hashes.get(user)
        check = partial(_verify, known or self._decoy, password)
        try:
            right = await self._threads.run(check, seconds=WAIT_SECONDS)
        except OverloadedError:
            raise RefusedError(
                503, "too many logins are being checked; try again in a moment"
            ) from None
        return right and known is not None


def _bytes_of(password: str) -> bytes:
    """In one form (NFC; RFC 8265): keyboards compose letters in two ways. JSON may hold half a
    surrogate pair, which is no password."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _verify(known: str, password: str) -> bool:
    try:
        return verify_secret(known.encode("ascii"), _bytes_of(password), Type.ID)
    except VerificationError:
        return False


def _decoy(hashes: Mapping[str, str]) -> str:
    """A hash that no password has, which takes as long as the slowest of ``hashes``."""
    slowest = max(map(extract_parameters, hashes.values()), key=_cost, default=None)
    if slowest is None:
        slowest = extract_parameters(_EXAMPLE)
    parameters = f"m={slowest.memory_cost},t={slowest.time_cost},p={slowest.parallelism}"
    return f"$argon2id$v=19${parameters}${_drawn(16)}${_drawn(slowest.hash_len)}"


_EXAMPLE: Final = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"


def _cost(parameters: Parameters) -> int:
    return parameters.memory_cost * parameters.time_cost


def _drawn(count: int) -> str:
    return base64.b64encode(secrets.token_bytes(count)).decode("ascii").rstrip("=")


class TooManyLoginsError(RefusedError):
    """Raised when somebody has failed to log in too often; nothing was checked."""

    def __init__(self, seconds: float) -> None:
        wait = max(1, int(seconds + 0.999))
        super().__init__(
            429,
            f"too many logins have failed; try again in {wait} s",
            headers={"Retry-After": str(wait)},
        )
        self.retry_after_seconds = wait


class Attempts:
    """How often something was tried lately, by key; for one thread."""

    def __init__(self, most: int, seconds: float, *, clock: Clock) -> None:
        """``most`` in any ``seconds``."""
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are counted."""
        return len(self._times)

    def wait_seconds(self, key: str) -> float:
        """How long until it may be tried again; 0: now."""
        now = self._clock.monotonic()
        times = self._times.get(key)
        while times and now - times[0] >= self._seconds:
            times.popleft()
        if times is None or len(times) < self._most:
            return 0.0
        return times[0] + self._seconds - now

    def add(self, key: str) -> None:
        """Count one."""
        self._times.setdefault(key, deque(maxlen=self._most)).append(self._clock.monotonic())
        self._times.move_to_end(key)
        while len(self._times) > MAX_COUNTED:
            self._times.popitem(last=False)

    def take_back(self, key: str) -> None:
        """Count the last one no more."""
        times = self._times.get(key)
        if times:
            times.pop()
        if not times:
            self._times.pop(key, None)


class LoginLimit:
    """How often a login may fail; for one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._by_address = Attempts(FAILURES_OF_ADDRESS, _ADDRESS_SECONDS, clock=clock)
        self._by_user = Attempts(FAILURES_OF_USER, _USER_SECONDS, clock=clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Who logged in from where; those that did last."""

    def __len__(self) -> int:
        """How many addresses and names are counted."""
        return len(self._by_address) + len(self._by_user)

    def begin(self, user: str | None, address: str) -> None:
        """Count a login as failed until `succeeded`, so that many at a time are no way around.

        Args:
            user: whose name was given; ``None``: a token was.
            address: from where.

        Raises:
            TooManyLoginsError: there were too many.
        """
        place = network_of(address)
        wait = self._by_address.wait_seconds(place)
        if user is not None and (user, place) not in self._known:
            wait = max(wait, self._by_user.wait_seconds(user))
        if wait:
            raise TooManyLoginsError(wait)
        self._by_address.add(place)
        if user is not None:
            self._by_user.add(user)

    def unchecked(self, user: str | None, address: str) -> None:
        """Nobody knows whether it would have failed: it does not count."""
        self._by_address.take_back(network_of(address))
        if user is not None:
            self._by_user.take_back(user)

    def succeeded(self, user: str | None, address: str) -> None:
        """It did not fail."""
        self.unchecked(user, address)
        if user is None:
            return
        place = network_of(address)
        self._known[(user, place)] = None
        self._known.move_to_end((user, place))
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)


def network_of(address: str) -> str:
    """What counts as one place: an address of IPv4, a network of 64 bits of IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if found.version == 4:
        return str(found)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))
