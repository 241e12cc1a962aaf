"""What one installation is set to: the tables of ``indexrelay.toml``, components among them.

Read once at the edge (`indexrelay.schemas.settings_file`) and passed in. Each setting says its
unit, what ``None`` means and why its default is what it is.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from indexrelay.schemas.admin import AdminSettings
from indexrelay.schemas.backups import BackupSettings
from indexrelay.schemas.definitions import (
    FILTERING_KINDS as FILTERING_KINDS,  # noqa: PLC0414 - handed on: all settings are found here
)
from indexrelay.schemas.definitions import (
    ComponentDefinition as ComponentDefinition,  # noqa: PLC0414 - as above
)
from indexrelay.schemas.filters import FilterableFields
from indexrelay.schemas.matrix import expand_components
from indexrelay.schemas.monitoring import AlertSettings, MonitoringSettings, NotificationSettings
from indexrelay.schemas.names import MAX_COMPONENTS, Identifier, Name
from indexrelay.schemas.schedules import ScheduleSettings
from indexrelay.schemas.tables import (
    CountOrFalse,
    FunctionReference,
    MillisecondsOrFalse,
    PositiveCount,
    PositiveSeconds,
    SecondsOrFalse,
    Table,
    UserPath,
)
from indexrelay.schemas.urls import database_kind, read_server_url, sqlite_url

TokenScope = Literal["read", "write", "admin"]


class TokenSettings(Table):
    """One table ``[http.tokens.NAME]``: a bearer token, by its sha256. ``indexrelay tokens
    generate`` makes one."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the token, in hexadecimal: who reads the settings cannot ask with it."""
    scope: TokenScope = "read"
    """``read``: searches, entries, documents, metrics. ``write``: also writes of entries, where
    ``http.writes`` allows them. ``admin``: also what changes the reader, as ``/v1/retry``."""
    filter: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """Of a tenant: a filter that is forced into everything that is asked with this token, so that
    it sees, and with the scope ``write`` changes, only what matches; what shows everybody's entries
    or counts is refused. It goes with the scopes ``read`` and ``write``. ``None``: everything may
    be seen."""

    @model_validator(mode="after")
    def _a_tenant_is_no_admin(self) -> Self:
        if self.filter is not None and self.scope == "admin":
            raise ValueError('a token with a filter has the scope "read" or "write"')
        return self


class HttpSettings(Table):
    """What the reader service lets its clients keep of it: time, memory and connections."""

    hosts: tuple[str, ...] = ()
    """Names, without a port, that a reader on a loopback address answers to, beside ``localhost``
    and loopback addresses (421): those that a proxy on this machine passes on. A reader on a unix
    socket, or on another address, answers to any."""
    max_connections: PositiveCount = 500
    """Open at the same time; fewer where the process may open too few files. One more takes the
    place of the one whose client was waited for the longest: for a second at least, where it has
    sent a request. While there is none a tenth more come in, and the next is refused (503)."""
    header_seconds: PositiveSeconds = 10.0
    """How long a request may take until its header is whole (408), counted from the connection or
    the answer before."""
    body_seconds: PositiveSeconds = 20.0
    """… and then its body (408): the largest one at 100 kB/s."""
    send_seconds: PositiveSeconds = 10.0
    """How long a client may take to read 64 kB of its answer; then the connection is cut."""
    max_body_bytes: PositiveCount = 2 * 1024 * 1024
    """Of one request (413): a vector of the greatest dimension, with all its digits, fits in."""
    max_answer_bytes: PositiveCount = 16 * 1024 * 1024
    """Of one search (422): a thousand hits with 16 kB of payload each. Documents of JSON caches are
    not meant: they lie in memory once for all."""
    max_buffered_bytes: PositiveCount = 64 * 1024 * 1024
    """Of all bodies that are received and all answers that are made or sent at a time. Where there
    is no room, the connection whose client was waited for the longest is cut, after a second at
    least; where there is none, the new body or answer is refused (503)."""
    searches: PositiveCount = 8
    """At the same time, each on a thread of its own; more than processors only help where indexes
    are read from disk."""
    max_waiting_searches: Annotated[int, Field(ge=0)] = 200
    """Searches that may wait for such a thread; one more is refused (503). Fewer where all of them
    were more than half of the connections: the rest is for smaller requests."""
    writes: bool = False
    """Whether entries may be written over HTTP: by whoever reaches the reader, or, with tokens, by
    those whose scope is ``write`` or ``admin``. The reader opens the catalog then."""
    max_waiting_writes: PositiveCount = 200
    """Writes that may wait for the next transaction; one more is refused (503). Also those that may
    wait to be visible or released; one more is answered at once (202)."""
    fresh_seconds: PositiveSeconds = 2.0
    """How long a request waits that asks for a fresh answer, until the reader has what it asks for
    (503). Others wait for nothing."""
    max_waiting_reads: PositiveCount = 100
    """Requests that wait so at a time; one more is refused (503). Fewer where all of them were more
    than a quarter of the connections."""
    mcp: bool = False
    """Whether agents may ask by the Model Context Protocol, at ``/mcp``: by the same tokens, and
    within the same limits. It takes the extra ``mcp``."""
    tokens: dict[Name, TokenSettings] = Field(default_factory=dict)
    """Who may ask, by names that are only for people. None: whoever reaches the reader, which
    listens on a loopback address or a unix socket then. One or more: nothing is answered without
    one of them but ``/health`` and ``/ready``."""

    @field_validator("tokens")
    @classmethod
    def _each_has_one_name(cls, tokens: dict[str, TokenSettings]) -> dict[str, TokenSettings]:
        names: dict[str, str] = {}
        for name, token in tokens.items():
            first = names.setdefault(token.sha256, name)
            if first != name:
                raise ValueError(f"{first} and {name} are the same token: draw another one")
        return tokens


class Metric(StrEnum):
    """How near two vectors are."""

    COSINE = "cosine"
    INNER_PRODUCT = "inner_product"
    L2 = "l2"


class CatalogSource(Table):
    """Entries live in the catalog; jobs write them with ``producer.batch()``."""

    kind: Literal["catalog"] = "catalog"
    """Where no source is named."""


class TableSource(Table):
    """Entries live in a user's own SQL table; jobs call ``producer.batch_completed()``."""

    kind: Literal["table"]
    url: SecretStr
    """An SQLAlchemy URL; it may hold a password and is never shown."""
    table: Identifier
    """A table or view of that database."""
    id_column: Identifier = "id"
    """Texts; each names one entry."""
    vector_column: Identifier = "vector"
    """Float32 values in the machine's byte order as bytes, or a JSON array of numbers as text."""
    on_missing_vector: Literal["skip", "fail"] = "skip"
    """What a row is whose vector is NULL. ``skip``: not embedded yet; it is left out until it has
    one, and counted in ``status`` and the manifest. ``fail``: a mistake, which no component of the
    collection is built over."""
    text_column: Identifier | None = None
    """What a ``text_index`` searches; ``None``: entries have no texts."""
    payload_column: Identifier | None = None
    """A JSON value as text; ``None``: entries have no payloads."""
    updated_at_column: Identifier | None = None
    """Its greatest value, with the row count, shows that there is something new.

    ``None``: only ``batch_completed()`` does."""

    @field_validator("url")
    @classmethod
    def _is_understood(cls, url: SecretStr) -> SecretStr:
        """The error quotes no part of the URL."""
        if not database_kind(url):
            raise ValueError(
                "write an SQLAlchemy URL, as sqlite:///PATH or postgresql://USER:PASSWORD@HOST"
                "[:PORT]/DATABASE; special characters of a password are percent-encoded"
            )
        return url


class FolderSource(Table):
    """Entries live in a folder of ``.npy`` / ``.npz`` files.

    ``.npy``: floats of the shape (rows, dimension); row 7 of ``songs.npy``, counted from 0, is the
    entry ``songs:7``. ``.npz``: the array ``vectors`` of that kind and, if wished, the unicode
    arrays ``ids`` (instead of names and rows), ``texts`` and ``payloads`` (JSON), each of its
    length; an empty text or payload stands for none. Nothing is unpickled. Subfolders and other
    files are left out, counted, and named in the log; a file on its way has a name that begins with
    a dot or ends in ``.part`` or ``.tmp``."""

    kind: Literal["folder"]
    path: UserPath
    """Relative to the file that names it."""


Source = Annotated[CatalogSource | TableSource | FolderSource, Field(discriminator="kind")]


class EmbedderSettings(Table):
    """What makes vectors of texts: a function of yours, which gets a list of ``n`` texts and gives
    an array of ``n`` vectors. In short: ``embedder = "module:function"`` in ``[collections.NAME]``.
    """

    function: FunctionReference
    """Where it is: ``module:function``. It runs on a thread of its own in jobs that hand over texts
    without vectors, and in whatever answers searches by text."""
    timeout_seconds: PositiveSeconds = 30.0
    """How long one call of it may take. What takes longer has failed, and is left alone on its
    thread."""
    query_seconds: PositiveSeconds = 2.0
    """How long a search waits for the vector of its text; then it is answered by words."""
    batch_texts: PositiveCount = 64
    """Texts that one call gets at most: enough for a model to work on at once, few enough that a
    search that comes meanwhile does not wait for long."""
    cache_texts: PositiveCount = 10_000
    """Vectors that are kept in memory, those that were used last: 15 MB at 384 dimensions."""


def _as_embedder(value: Any) -> Any:
    """Let ``embedder = "module:function"`` stand for a table."""
    return {"function": value} if isinstance(value, str) else value


class CollectionSettings(Table):
    """One table ``[collections.NAME]``."""

    dimension: Annotated[int, Field(ge=1, le=65536)]
    """Of every vector. It cannot be changed: drop the collection and fill it again."""
    metric: Metric = Metric.COSINE
    """How near two vectors are. Cosine: vectors are indexed at unit length."""
    max_text_bytes: PositiveCount = 1_048_576
    """Bytes of UTF-8 that one text may have: a book's chapter, where a passage is meant. What is
    longer is refused by every door, and finds nothing better than its parts would."""
    max_payload_bytes: PositiveCount = 65_536
    """Bytes of UTF-8 that one payload's JSON may have. An answer carries a payload for each of its
    hits, so that a thousand of them take 64 MB."""
    filterable: FilterableFields = Field(default_factory=dict)
    """Fields of the payloads that searches may filter by, and the type of each: ``{ year =
    "number", genre = "keyword", tags = "keywords", added = "datetime", live = "boolean" }``. A dot
    goes into an object: ``"album.year"``. A payload in which one holds another type is refused by
    every door. Those of our kinds that search this collection are built again when it changes."""
    source: Source = CatalogSource()
    live: Annotated[bool, Field(validate_default=True)] = False
    """Whether readers lay what is committed over their release before one covers it, so that a
    write is found within milliseconds; for entries that the catalog keeps."""
    persistence: Literal["immediate", "periodic", "manual"] = "immediate"
    """When what is committed becomes a release. ``immediate``: as soon as it can be built.
    ``periodic``: at most every ``save_interval_seconds``. ``manual``: when somebody asks
    (``indexrelay rebuild``). Nothing is lost under any of them: it is in the catalog. Of a live
    collection readers find it meanwhile, and too many changes become a release by themselves."""
    save_interval_seconds: PositiveSeconds = 300.0
    """How long ``periodic`` waits after one version is built until the next one is."""
    embedder: Annotated[
        EmbedderSettings | None,
        BeforeValidator(
            _as_embedder, json_schema_input_type=FunctionReference | EmbedderSettings | None
        ),
    ] = None
    """What makes vectors of texts, as ``module:function`` or a table: entries then need no vector,
    and searches by text are searches by vector, too. ``None``: vectors are given."""

    @field_validator("live")
    @classmethod
    def _the_catalog_knows_the_changes(cls, live: bool, info: ValidationInfo) -> bool:
        source = info.data.get("source")
        if live and source is not None and source.kind != "catalog":
            raise ValueError(
                f"live takes entries that the catalog keeps, not those of a {source.kind}"
            )
        return live


class RedisSettings(Table):
    """The server that carries signals, leases and presence."""

    url: SecretStr | None = None
    """``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB``;
    ``None``: the embedded server."""
    operator_url: SecretStr | None = None
    """The same server as a user who may end scripts and delete, for ``indexrelay repair redis``;
    ``None``: as ``url``. Give it by its variable, to people only."""
    timeout_seconds: PositiveSeconds = 5.0
    """How long one command may take before it counts as failed."""

    @field_validator("url", "operator_url")
    @classmethod
    def _is_understood(cls, url: SecretStr | None) -> SecretStr | None:
        """Here and not when connecting, so that every mistake is found before anything starts."""
        if url is not None:
            read_server_url(url.get_secret_value())
        return url


class CatalogSettings(Table):
    """The database that holds the data, and what was asked for."""

    url: SecretStr | None = None
    """An SQLAlchemy URL (SQLite or PostgreSQL); ``None``: ``DATA_DIR/catalog.db``."""

    @field_validator("url")
    @classmethod
    def _is_understood(cls, url: SecretStr | None) -> SecretStr | None:
        """Here and not when opening it; the error quotes no part of the URL."""
        if url is not None and database_kind(url) not in {"sqlite", "postgres", "postgresql"}:
            raise ValueError(
                "write sqlite:///PATH or postgresql://USER:PASSWORD@HOST[:PORT]/DATABASE; special "
                "characters of a password are percent-encoded"
            )
        return url


PublicKey = Annotated[str, Field(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$")]
"""As ``indexrelay keys show`` prints it."""
_NEEDS_A_PLACE = (
    "name an artifacts.dir outside of data_dir: that folder is its owner's, and no group enters it"
)


class ArtifactSettings(Table):
    """Where blobs, versions and releases are kept."""

    dir: UserPath | None = None
    """``None``: ``DATA_DIR/artifacts``."""
    group_readable: Annotated[bool, Field(validate_default=True)] = False
    """Whether the group of the user who writes them may read the artifacts: for readers that run
    as another user of that group, who then can change nothing and lock nothing. It takes a ``dir``
    outside of ``data_dir``, which stays its owner's. ``false``: no other user may read them."""

    signing_key_file: UserPath | None = None
    """A private key (Ed25519, as ``indexrelay keys generate`` makes it) with which every release
    that is committed here is signed: by rebuilders, and by commands that hold, lift or roll back.
    Relative to the file that names it. ``None``: releases are not signed."""
    trusted_keys: Annotated[tuple[PublicKey, ...], Field(min_length=1)] | None = None
    """Public keys: only releases that one of them has signed are taken, by readers and by everyone
    else who has these settings. Several, while keys change. ``None``: every release is taken."""

    @field_validator("group_readable")
    @classmethod
    def _has_a_place(cls, group_readable: bool, info: ValidationInfo) -> bool:
        if group_readable and info.data.get("dir") is None:
            raise ValueError(_NEEDS_A_PLACE)
        return group_readable


class ProducerSettings(Table):
    """How jobs hand over batches."""

    max_backlog: CountOrFalse = 50_000
    """Events that may wait for a rebuilder; above it a batch is committed and raises
    `BacklogFullError`. Half of what a stream may hold, so that none is cut off; ``false``: no
    limit."""


class RebuilderSettings(Table):
    """How events become builds."""

    quiet_seconds: Annotated[float, Field(ge=0)] = 0.2
    """A pass starts this long after the last event: a burst becomes one pass."""
    max_delay_seconds: Annotated[PositiveSeconds, Field(validate_default=True)] = 5.0
    """… but never later than this after the first one, so that a steady stream gets through."""
    max_batches: PositiveCount = 1000
    """… or when this many came together."""
    release_after_seconds: PositiveSeconds = 10.0
    """Finished components wait this long for slower ones of their pass, to be released together;
    then they are released, and the others follow with a release of their own."""
    workers: PositiveCount = 2
    """Builds at the same time on this host."""
    build_threads: PositiveCount = 2
    """Threads of one build at most. A full build takes fewer while other processes use the host's
    processors, so that queries are not disturbed."""
    build_timeout_seconds: PositiveSeconds = 3600.0
    """How long one build may take, its verification included; then its process is killed."""
    build_memory_bytes: PositiveCount | None = None
    """Private memory of one build beside the index that it makes: rows to train on, chunks on their
    way. ``None``: no limit. Mapped files do not count, and no index has to be known beforehand."""
    max_memory_bytes: PositiveCount | None = None
    """Memory of all builds at a time, by an estimate for each: what its entries take, twice, and
    what its last version has where that is more. One that does not fit beside those that run waits,
    and one that never does fails, with both figures. ``None``: no limit."""
    build_niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """How far builds stand back behind other processes of the host, at the processor and, since its
    priority follows from this one, at the disk. 10: a tenth of a busy processor; 19: the rest."""
    lease_ttl_seconds: PositiveSeconds = 15.0
    """How long a dead host blocks a component; renewed at a third of it."""
    block_seconds: Annotated[float, Field(gt=0, le=2)] = 1.0
    """How long one blocking read waits; also how long a stop takes at most."""
    claim_idle_seconds: PositiveSeconds = 10.0
    """Events that another consumer took this long ago, and did not acknowledge, are taken over."""
    reconcile_seconds: PositiveSeconds = 30.0
    """How often sources, artifacts and Redis are compared without any event."""
    max_consecutive_failures: PositiveCount = 3
    """After this many failed builds in a row a component is not tried again until its input
    changes, its definition changes, or someone asks."""
    failure_cooldown_seconds: PositiveSeconds = 10.0
    """Wait before the first retry of a failed build; doubled each time, moved by up to a fifth."""
    max_failure_cooldown_seconds: Annotated[PositiveSeconds, Field(validate_default=True)] = 600.0
    """… up to this: a component that failed often is still rebuilt within minutes."""
    max_deliveries: PositiveCount = 5
    """An event that ended the process which read it so many times in a row is a dead letter, and
    not read again: enough for what is killed by chance, few enough to stop a circle of restarts."""
    max_inbox_rows: PositiveCount = 100_000
    """Events that the catalog remembers, so that a repeat is nothing: as many as a stream holds.
    Beyond it the oldest that are finished go; where none are, further events are not noted one by
    one, since those that are have everything looked at."""
    max_dead_letters: PositiveCount = 1000
    """Events that could not be read and are kept for people, of each the first 64 KiB. Further ones
    are counted and dropped: an event only says "look now"."""
    presence_ttl_seconds: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """A rebuilder counts as gone when its presence was not renewed for so long. It is renewed at a
    third of it."""
    trim_seconds: PositiveSeconds = 60.0
    """How often streams are trimmed to what may still be needed. An entry takes about
    410 bytes, so that what a busy minute adds is small."""
    gc_seconds: PositiveSeconds = 600.0
    """How often artifacts that no kept release and no reader needs are garbage collected. It reads
    the name of every file, and is not urgent."""
    keep_releases: PositiveCount = 10
    """The newest releases stay, with all that they name, to roll back to. Versions share most of
    their files, so that ten weigh little more than one. Readers' versions stay in any case, and any
    file for an hour longer than the longest build may take (``build_timeout_seconds``)."""
    history_seconds: PositiveSeconds = 604800.0
    """Results and reports are kept this long for people to read: a week, as the inbox does."""
    history_entries: PositiveCount = 10_000
    """… but no more of each than this, so that a restless fleet does not fill the memory."""
    stream_max_entries: PositiveCount = 100_000
    """Entries that a stream may hold at most (about 40 MB), read or not. Above it the oldest go:
    events that were cut off are found in the catalog, readers look at the newest release."""
    stream_max_bytes: PositiveCount = 67_108_864
    """Memory of the server that a stream may take at most, read or not; never more than a sixteenth
    of the server's ``maxmemory``. Above it the oldest entries go, as above."""

    @field_validator("max_delay_seconds", "max_failure_cooldown_seconds")
    @classmethod
    def _the_longest_is_not_shorter(cls, longest: float, info: ValidationInfo) -> float:
        """A limit below what it limits would contradict one of the two keys."""
        limited = str(info.field_name).removeprefix("max_")
        first = "quiet_seconds" if limited == "delay_seconds" else limited
        shortest = info.data.get(first)
        if shortest is not None and longest < shortest:
            raise ValueError(f"must be at least {first}, which is {shortest:g}")
        return longest


class ReleaseSettings(Table):
    """How a release reaches all readers, and how it is taken back."""

    canary_readers: Annotated[int, Field(ge=0, le=1000)] = 0
    """Readers that take new versions first, counted by their labels; the others follow once these
    have served them for ``canary_seconds``. 0: every release is for everyone at once. So it is,
    too, where there are no more readers than this."""
    canary_seconds: PositiveSeconds = 60.0
    """How long canaries have to serve a release without a failure. Nothing is built meanwhile, so
    this adds to how long a batch takes until everyone serves it."""
    canary_load_seconds: PositiveSeconds = 300.0
    """How long a canary may take until it serves a release. After that another one tries it."""
    canary_min_overlap: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the best ten of each of its last queries, the share that a canary has to find again in a
    new version, as a mean; else it refuses it. ``None``: it is measured and shown."""
    enable_rollback: bool = False
    """Whether a release that was for everyone is taken back by itself when too many readers refuse
    a version of it. A canary that refuses is followed in any case."""
    rollback_quorum: Annotated[float, Field(ge=0, lt=1)] = 0.34
    """More than this share of the live readers has to refuse it, counted by their labels. 0.34: two
    of four or five, one of two, and never one of three."""


class ReaderSettings(Table):
    """How releases become snapshots."""

    components: tuple[Name, ...] | None = None
    """What to serve; ``None``: everything that a release names."""
    start_spread_seconds: Annotated[float, Field(ge=0)] = 0.2
    """Readers that start at once look first within this time, each at a moment that follows from
    its id. Enough for fifty of them; more for hundreds. A lone one is a tenth later on average."""
    poll_seconds: PositiveSeconds = 5.0
    """How often the release number is checked without any message, at least."""
    block_seconds: Annotated[float, Field(gt=0, le=2)] = 1.0
    """How long one blocking read waits; also how long a stop takes at most."""
    presence_ttl_seconds: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """A reader that did not report for this long counts as gone; renewed at a third of it."""
    retry_seconds: PositiveSeconds = 1.0
    """Wait before a load that failed for want of memory, disk or network is tried again;
    doubled each time, up to a minute, and moved by up to a fifth."""
    memory_budget_bytes: PositiveCount | None = None
    """Bytes of all versions that are open at a time, the one that is loaded and the one that it
    replaces among them, by the size of their files. What would exceed it is refused before it is
    loaded. ``None``: no limit. Pages of files are shared by all readers of a host, and the kernel
    may drop them: this is the most that they can come to."""
    scrub_interval_seconds: SecondsOrFalse = 86400.0
    """How often every byte of what is served is hashed again, once for all readers of a host: disks
    rot in months, and a day's reading is nothing to them. ``false``: only files that were
    changed are, within ``poll_seconds``."""
    scrub_bytes_per_second: PositiveCount = 20_000_000
    """… and how fast at most: a tenth of what a plain disk gives, and 2 % of a core."""
    slow_query_ms: MillisecondsOrFalse = None
    """A query that takes more milliseconds is logged (``query.slow``), with component, version,
    plan where it was explained, ``k`` and seconds, and nothing of what was asked; over HTTP the
    whole of a request, and in a process that asks by itself each call. ``false``: none is."""


LiveKey = Annotated[SecretStr, Field(min_length=32, max_length=1000)]


class LiveSettings(Table):
    """How changes of live collections reach readers before they are in a release."""

    keys: Annotated[tuple[LiveKey, ...], Field(max_length=8)] = ()
    """Secrets that jobs and readers share, of 32 characters and more; ``openssl rand -hex 32``
    makes one. Jobs sign changes with the first, readers take those that any of them signed, so that
    keys can be changed. Give them by their variable, ``INDEXRELAY_LIVE__KEYS=["…"]``. None: changes
    are not sent, only that there are some, and readers fetch them from the catalog."""
    max_entries: PositiveCount = 10_000
    """Entries of one collection that a reader lays over its release at most: so many are scanned in
    a millisecond. Past it the reader asks for a rebuild, if it may write to the catalog,
    and stays where it is until a release takes them over."""


class LogSettings(Table):
    """How log lines look."""

    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: lines for people on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Table):
    """The whole file."""

    namespace: Name = "indexrelay"
    """Prefix of every Redis key; installations with different ones do not see each other."""
    data_dir: UserPath = Path("indexrelay-data")
    """Where what has no place of its own is kept. Relative to the file that names it; here and in
    every path a leading ``~`` is the home folder."""
    modules_dir: UserPath | None = None
    """Where modules of your own lie that `kind` and `function` name; ``None``: beside the file.
    Relative to the file that names it. What is installed comes first."""
    redis: RedisSettings = RedisSettings()
    catalog: CatalogSettings = CatalogSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    producer: ProducerSettings = ProducerSettings()
    rebuilder: RebuilderSettings = RebuilderSettings()
    releases: ReleaseSettings = ReleaseSettings()
    reader: ReaderSettings = ReaderSettings()
    http: HttpSettings = HttpSettings()
    admin: AdminSettings = AdminSettings()
    live: LiveSettings = LiveSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    alerts: AlertSettings = AlertSettings()
    notifications: NotificationSettings = NotificationSettings()
    log: LogSettings = LogSettings()
    backups: BackupSettings = BackupSettings()
    collections: Annotated[dict[Name, CollectionSettings], Field(max_length=MAX_COMPONENTS)] = (
        Field(default_factory=dict)
    )
    components: Annotated[dict[Name, ComponentDefinition], Field(max_length=MAX_COMPONENTS)] = (
        Field(default_factory=dict)
    )
    schedules: Annotated[dict[Name, ScheduleSettings], Field(max_length=MAX_COMPONENTS)] = Field(
        default_factory=dict
    )

    @field_validator("components", mode="before")
    @classmethod
    def _matrices_are_written_out(cls, components: Any) -> Any:
        if not isinstance(components, dict):
            return components
        expanded, mistakes = expand_components(components)
        if mistakes:
            raise ValueError("; ".join(map(str, mistakes)))
        return expanded

    @field_validator("components")
    @classmethod
    def _fields_reach_those_who_filter(
        cls, components: dict[Name, ComponentDefinition], info: ValidationInfo
    ) -> dict[Name, ComponentDefinition]:
        collections: dict[Name, CollectionSettings] = info.data.get("collections", {})
        return {
            name: each.filtering_by(collections[each.inputs[0]].filterable)
            if each.kind in FILTERING_KINDS and each.inputs[0] in collections
            else each
            for name, each in components.items()
        }

    @field_validator("artifacts")
    @classmethod
    def _group_gets_there(cls, artifacts: ArtifactSettings, info: ValidationInfo) -> Any:
        data_dir, place = info.data.get("data_dir"), artifacts.dir
        if data_dir is None or place is None or not artifacts.group_readable:
            return artifacts
        if place.is_relative_to(data_dir):
            raise ValueError(_NEEDS_A_PLACE)
        return artifacts

    @property
    def has_duties(self) -> bool:
        """Whether there is anything for an operator to do (`indexrelay operator`)."""
        watched = self.monitoring.operator is not None or bool(self.notifications.targets)
        return bool(self.schedules) or self.backups.schedule is not None or watched

    @property
    def has_admin(self) -> bool:
        """Whether the file or a variable says anything of the admin page (`indexrelay admin`)."""
        return "admin" in self.model_fields_set

    @property
    def artifacts_dir(self) -> Path:
        """Where the artifact store is."""
        return self.artifacts.dir or self.data_dir / "artifacts"

    @property
    def backups_dir(self) -> Path:
        """Where backups are kept."""
        return self.backups.dir or self.data_dir / "backups"

    @property
    def marks_dir(self) -> Path | None:
        """Where this host remembers which artifacts it has checked; ``None``: among them.

        A user who may write there could mark a file as checked that never was.
        """
        return None if self.artifacts.trusted_keys is None else self.data_dir / "marks"

    @property
    def catalog_url(self) -> str:
        """The catalog's SQLAlchemy URL; it may hold a password: never log it."""
        if self.catalog.url is not None:
            return self.catalog.url.get_secret_value()
        return sqlite_url(self.data_dir / "catalog.db")

    @property
    def live_keys(self) -> tuple[bytes, ...]:
        """The keys of live changes, as they are used; never log them."""
        return tuple(key.get_secret_value().encode() for key in self.live.keys)

    @property
    def redis_url(self) -> str | None:
        """The server's URL, or ``None`` for the embedded one; it may hold a password."""
        return None if self.redis.url is None else self.redis.url.get_secret_value()
