"""Where a study is kept: memory, a journal file, a database, or a gRPC proxy, by URL.

A URL is data: its form is checked, nothing in it is run, and its user and password are never written or printed.
"""

from __future__ import annotations

import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from dse.errors import BadInput, DseError, nearest

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

MEMORY: Final = "memory"
FORMS: Final = (
    "memory", "journal:PATH", "sqlite:///PATH", "postgresql://USER:PASSWORD@HOST:PORT/DATABASE", "grpc://HOST:PORT"
)  # fmt: skip
DRIVERS: Final = ("psycopg2", "psycopg", "pg8000")
"""Python packages that speak to PostgreSQL, in the order of preference."""

GRPC_PORT: Final = 13000
RETRIES: Final = 3
"""Times a trial is handed on whose process fell silent."""

CONNECT_SECONDS: Final = 15
OPENINGS: Final = 10
"""Times an empty database is opened while other processes make its tables."""

Remark = Callable[[str], None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")


def silent(text: str) -> None:
    """Says nothing."""


def check_name(name: str) -> str:
    """A study's name if it is letters, digits, '.', '_' and '-', at most 100."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"--study-name {name[:40]!r}: must be at most 100 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return name


@dataclass(frozen=True)
class Place:
    """A storage that was read from its URL.

    Attributes:
        kind: ``memory``, ``journal``, ``sqlite``, ``postgresql`` or ``grpc``.
        url: what to open; holds the password. path: of a journal or SQLite file.
        own: whether it is the journal of the run directory that the study is written to.
    """

    kind: str
    url: str = ""
    path: Path | None = None
    host: str = ""
    port: int = 0
    own: bool = False

    def __repr__(self) -> str:
        return f"Place({self})"

    def __str__(self) -> str:
        """The place without user, password and options: what may be printed and written."""
        if self.kind == "postgresql":
            parts = urlsplit(self.url)
            return f"postgresql://{self.host}{f':{self.port}' if self.port else ''}{parts.path}"
        if self.kind == "grpc":
            return f"grpc://{self.host}:{self.port}"
        return self.kind if self.path is None else f"{self.kind}:{self.path.name}"

    @property
    def shared(self) -> bool:
        """Whether other processes can take part."""
        return self.kind != MEMORY

    @property
    def beside(self) -> str:
        """What to do where a study there is in the way: a run directory holds one study, a storage many."""
        return (
            "choose another directory with --output"
            if self.own
            else "give another --study-name, and its directory with --output"
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no message may hold."""
        if self.kind != "postgresql":
            return ()
        parts = urlsplit(self.url)
        queried = re.findall(r"(?:password|passwd|user|passfile|sslpassword)=([^&]+)", parts.query)
        found = [t for t in (parts.username, parts.password, *queried) if t]
        return tuple(sorted({*found, *(unquote(t) for t in found)}, key=len, reverse=True))


def read_place(url: str) -> Place:
    """A storage from what a user wrote.

    Raises:
        BadInput: not one of `FORMS`, or its driver is not installed; the message does not repeat a URL that may
            hold a password.
    """
    scheme, colon, rest = url.partition(":")
    if url == MEMORY:
        return Place(MEMORY)
    if not colon and (url.endswith((".log", ".journal")) or "/" in url):
        scheme, rest = "journal", url
    if any(c.isspace() or ord(c) < 32 for c in url) and scheme not in ("journal", "sqlite"):
        raise BadInput("--storage: holds a space or a control character; must be one of " + ", ".join(FORMS))
    if scheme == "journal" and rest:
        return Place("journal", path=Path(rest))
    if scheme == "sqlite" and rest.startswith("///") and len(rest) > 3 and "?" not in rest:
        return Place("sqlite", url=url, path=Path(rest[3:]))
    if scheme in ("postgresql", "postgres", "grpc") or scheme.startswith("postgresql+"):
        return _server(scheme, url)
    known = ("memory", "journal", "sqlite", "postgresql", "grpc")
    hint = nearest(scheme, known) if colon and scheme.isalnum() else ""
    raise BadInput(f"--storage: must be one of {', '.join(FORMS)}{f'; {hint}' if hint else ''}")


def _server(scheme: str, url: str) -> Place:
    form = FORMS[4] if scheme == "grpc" else FORMS[3]
    if "://" not in url:
        raise BadInput(f"--storage: must be {form}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadInput(f"--storage: the host or port cannot be read; must be {form}") from None
    if scheme == "grpc":
        if not _HOST.fullmatch(host) or parts.username or parts.path.strip("/") or parts.query:
            raise BadInput(f"--storage: must be {form}")
        _need("grpc", "grpcio protobuf", ("grpc", "google.protobuf"))
        return Place("grpc", host=host, port=port or GRPC_PORT)
    # A host may be left out: the server's own socket, or one named in the options.
    if (host and not _HOST.fullmatch(host)) or not parts.path.strip("/") or parts.path.count("/") > 1:
        raise BadInput(f"--storage: must be {form}")
    driver = scheme.partition("+")[2]
    if driver and driver not in DRIVERS:
        raise BadInput(f"--storage: driver {driver!r}; {nearest(driver, DRIVERS)}")
    if not driver:
        driver = next((d for d in DRIVERS if find_spec(d) is not None), "")
    if not driver or find_spec(driver) is None:
        raise BadInput(
            f"--storage: PostgreSQL needs {driver or DRIVERS[0]}: run `pip install {(driver or DRIVERS[0])}"
            f"{'-binary' if (driver or DRIVERS[0]) == 'psycopg2' else ''}`"
        )
    return Place(
        "postgresql", url=f"postgresql+{driver}://{url.partition('://')[2]}", host=host, port=port or 0
    )


def _need(kind: str, install: str, modules: tuple[str, ...]) -> None:
    for module in modules:
        try:
            found = find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise BadInput(f"--storage: {kind} needs {install}: run `pip install {install}`")


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log lines and without warnings that an interface is experimental."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", module=r"optuna\..*")
            yield
    finally:
        optuna.logging.set_verbosity(level)


def open_storage(
    place: Place, grace: int, remark: Remark = silent, create: bool = True, reading: bool = False
) -> BaseStorage:
    """Optuna's storage.

    Nothing of it unpickles or evaluates what it holds: `dse.study.journal` has no snapshots, which Optuna pickles.

    Args:
        grace: seconds after which a silent trial counts as lost.
        remark: told what was mended.
        create: make a journal where there is none.
        reading: only look at a journal, and leave it as it is.

    Raises:
        BadInput: nothing answers there, or the file cannot be used.
    """
    import optuna.storages as o

    from dse.study.journal import Journal

    try:
        if place.kind == MEMORY:
            return o.InMemoryStorage()
        if place.kind == "journal":
            assert place.path is not None
            if create and not reading:
                place.path.parent.mkdir(parents=True, exist_ok=True)
            return o.JournalStorage(Journal(place.path, remark, create, reading))
        if place.kind == "grpc":
            proxy = o.GrpcStorageProxy(host=place.host, port=place.port)
            proxy.wait_server_ready(timeout=CONNECT_SECONDS)
            return proxy
        if place.path is not None:
            _check_sqlite(place, place.path)
        return _database(place, grace)
    except DseError:
        raise
    except Exception as error:
        raise unusable(place, error) from None


def _check_sqlite(place: Place, path: Path) -> None:
    """Raise BadInput where a file is no SQLite database, a damaged one, or another program's.

    SQLite notices damage of its own structure, and keeps no checksum of the values in it.
    """
    import sqlite3
    from contextlib import closing

    begin = f"--storage {place}"
    if not path.exists():
        return
    if not path.is_file():
        raise BadInput(f"--storage {place.kind}:{path}: is no file; name one that is, or a new one")
    if path.stat().st_size == 0:
        return
    found, tables = "", set()
    try:
        with closing(sqlite3.connect(path.absolute().as_uri() + "?mode=rw", uri=True, timeout=60)) as base:
            base.execute("PRAGMA trusted_schema = OFF")
            found = base.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {name for (name,) in base.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return  # busy, or closed to us: opening it says so
    except sqlite3.DatabaseError as error:
        found = str(error)
        if "not a database" in found:
            raise BadInput(
                f"{begin}: is no SQLite database; nothing was changed, name another file"
            ) from None
    if found != "ok":
        raise BadInput(
            f"{begin}: is damaged ({' '.join(found.split())[:120]}); `sqlite3 {path.name} .recover` writes what can be "
            "saved, then name the new file"
        )
    if tables and not {"studies", "trials"} <= tables:
        raise BadInput(f"{begin}: is the database of another program; nothing was changed, name another file")


def _database(place: Place, grace: int) -> BaseStorage:
    import optuna.storages as o
    import sqlalchemy.exc

    connect: dict[str, Any] = {"timeout": 60} if place.kind == "sqlite" else {}
    if place.path is not None:
        place.path.parent.mkdir(parents=True, exist_ok=True)
    if place.url.startswith("postgresql+psycopg") and "connect_timeout=" not in place.url:
        connect["connect_timeout"] = CONNECT_SECONDS
    for attempt in range(1, OPENINGS + 1):
        try:
            return o.RDBStorage(
                place.url,
                engine_kwargs={"connect_args": connect} if connect else {},
                heartbeat_interval=max(1, grace // 3),
                grace_period=grace,
                heartbeat_stale_trial_callback=o.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
        except sqlalchemy.exc.DBAPIError as error:
            # Two processes that find an empty database both make its tables; who comes second opens it again.
            late = isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(error.orig)
            if not late or attempt == OPENINGS:
                raise
            time.sleep(random.uniform(0, 0.2 * attempt))
    raise AssertionError("unreachable")


def unusable(place: Place, error: BaseException) -> BadInput:
    """What went wrong with a storage as one line without secrets."""
    text = str(getattr(error, "orig", None) or error) or type(error).__name__
    line = " ".join(text.split())
    for secret in place.secrets:  # a short one only where it stands alone: it is in half of all words
        exact = re.escape(secret)
        line = re.sub(rf"(?<!\w){exact}(?!\w)" if len(secret) < 4 else exact, "***", line)
    number = _replaying(error)
    if number:
        return BadInput(f"{place}:{number}: is damaged, or from another program ({line[:200]}); {_ANOTHER}")
    return BadInput(
        f"--storage {place}: cannot be used: {line[:300]}{'' if place.path is None else f'; {_ANOTHER}'}"
    )


_ANOTHER = "choose another with --storage, or begin another run directory with --output"


def _replaying(error: BaseException) -> int:
    """Number of the journal's line that Optuna could not take; 0 where the error is another."""
    walk = error.__traceback__
    while walk is not None:
        if walk.tb_frame.f_code.co_name == "apply_logs":
            return int(getattr(walk.tb_frame.f_locals.get("self"), "log_number_read", 0))
        walk = walk.tb_next
    return 0


def is_storages(error: BaseException) -> bool:
    """Whether an error comes from what a storage holds or cannot do, and not from dse's own code.

    It is Optuna's, a driver's or a server's: the innermost function that is dse's or Optuna's is Optuna's.
    """
    if type(error).__module__.startswith(("sqlalchemy", "grpc", "psycopg", "pg8000", "sqlite3")):
        return True
    last, walk = "", error.__traceback__
    while walk is not None:
        name = str(walk.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] in ("dse", "optuna", "cmaes"):
            last = name
        walk = walk.tb_next
    return last.startswith(("optuna", "cmaes"))
