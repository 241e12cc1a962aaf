"""What can go wrong with serving, and what to do about it."""

from collections.abc import Iterable

from indexrelay.schemas.errors import IndexRelayError


class ReloaderStoppedError(IndexRelayError):
    """Raised when a snapshot is asked of a reloader that was stopped; start it again first."""

    def __init__(self) -> None:
        super().__init__("this reloader was stopped; start() it to serve again")


class SnapshotClosedError(IndexRelayError):
    """Raised when a snapshot is used after its ``with`` ended; acquire one for each query."""

    def __init__(self) -> None:
        super().__init__("this snapshot was given back; use it inside its with statement")


class OpenAddressError(IndexRelayError):
    """Raised when the service is to listen where other machines reach it, and nobody has said that
    they may: it does not ask who they are."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is reached from other machines, and whoever reaches it may search and read "
            "every document: listen on 127.0.0.1 or a unix socket, behind a proxy that asks who it "
            "is; or insist with --insecure"
        )
        self.address = address


class ComponentNotServedError(IndexRelayError, KeyError):
    """Raised when a snapshot does not hold a component.

    It is misspelt, not released yet, its first load failed, or ``reader.components`` leaves it out:
    the reader's state says which.
    """

    def __init__(self, component: str, served: Iterable[str]) -> None:
        super().__init__(component)
        self.component = component
        self.served = tuple(sorted(served))

    def __str__(self) -> str:
        there = ", ".join(self.served) or "nothing yet"
        return f"no component {self.component!r} is served here; there is {there}"


class KindNotAllowedError(IndexRelayError):
    """Raised when a manifest names a class that this reader's settings do not.

    A manifest is data and must not decide what is imported. Install the kind as an entry point, or
    declare the component with this kind in the reader's own settings.
    """

    def __init__(self, component: str, kind: str) -> None:
        super().__init__(
            f"{component} was built as {kind!r}, which is no installed kind; "
            f"to serve it, declare kind = {kind!r} under [components.{component}] here, too"
        )
        self.component = component
        self.kind = kind
