"""The file of a SQLite store: whether it is one, who writes it, and connections to it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from urllib.parse import quote

import apsw

from engine.errors import ConfigError, StoreError, StoreLocked, StoreUnavailable
from engine.stores.layout import Layout
from engine.stores.sqlite_schema import APPLICATION_ID, create_schema

BUSY_TIMEOUT_MS = 5_000
"""How long a statement waits for another program's lock, such as a backup or a shell.

Longer than any transaction of ours (a batch takes milliseconds), shorter than the patience of a
buyer (10 s by default).
"""

WAL_PAGES_MAX = 512
"""Pages in the write-ahead log (4 MiB of 8,192 bytes) after which it is copied into the database.

Measured: a batch of 8,190 events is 83 pages, so this is every 6th batch and takes about 5 ms, once
the batch is acknowledged. With 64 MiB it is 70 to 250 ms at a stretch and no less in total; SQLite's
default of 1,000 pages does it inside COMMIT, where buyers wait for it.
"""

WAL_BYTES_KEPT = 64 << 20
"""The log shrinks back to this after a long read (an audit) made it grow."""

_SYNCHRONOUS_FULL = 2

SQLITE_FILE = b"SQLite format 3\0"
HEADER_BYTES = 100
MARK_AT = slice(68, 72)
"""Where the application id stands (sqlite.org/fileformat.html, "The Database Header")."""


def find_store(path: str) -> bool:
    """Tell whether `path` holds a store (True) or nothing yet (False). Creates and changes nothing.

    Raises ConfigError when something else is there, or nothing could be.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        _check_parent(path)
        _check_no_log(path)
        return False
    except OSError as error:
        raise ConfigError(f"cannot open the store {path}: {error.strerror}") from None
    if stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path} is a directory; the store is a file, such as {path}/seckill.db")
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a regular file; a store cannot live there")
    if found.st_size == 0:
        _check_no_log(path)
        return False
    _check_mark(path)
    return True


def _check_parent(path: str) -> None:
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise ConfigError(f"cannot create the store {path}: there is no directory {parent}")


def _check_no_log(path: str) -> None:
    log = f"{path}-wal"
    if os.path.exists(log):
        raise ConfigError(
            f"{path} is missing or empty but its log {log} is there and may hold orders; "
            "put the store back, or remove the log to begin a new one"
        )


def _check_mark(path: str) -> None:
    """Read only the header: `immutable` takes no lock and leaves no file beside a foreign one.

    Opening the file without SQLite would do harm: closing it drops the locks that SQLite holds on
    it for this process. Asking SQLite for the mark would read the file without its log, and a crash
    in the middle of a checkpoint leaves it malformed until the log is copied into it again.
    """
    address = f"file:{quote(os.path.abspath(path))}?immutable=1"
    try:
        connection = apsw.Connection(
            address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            _, header = connection.read("main", 0, 0, HEADER_BYTES)
        finally:
            connection.close()
    except apsw.Error as error:
        raise ConfigError(f"cannot open the store {path}: {error}") from None
    if not header.startswith(SQLITE_FILE):
        raise ConfigError(f"{path} is not a SQLite database; it was left as it is")
    if header[MARK_AT] != APPLICATION_ID.to_bytes(4, "big"):
        raise ConfigError(f"{path} is a SQLite database of another program; it was left as it is")


def create_store(path: str, layout: Layout) -> None:
    """Create the file, whole or not at all: built beside its place, then moved there.

    Raises ConfigError when it cannot be written.
    """
    draft = f"{path}.new"
    try:
        Path(draft).unlink(missing_ok=True)
        connection = apsw.Connection(draft)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            create_schema(connection, layout)
        finally:
            connection.close()
        os.replace(draft, path)
        _sync_directory(os.path.dirname(path))
    except (apsw.Error, OSError) as error:
        raise ConfigError(f"cannot create the store {path}: {error}") from None


def _sync_directory(path: str) -> None:
    """Make the name of a new file durable, which syncing the file itself does not."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class FileLock:
    """The right to write a store: a lock on `<store>.lock` that dies with the process.

    It is a `flock`, so that it also keeps a second store of this very process out; the locks of
    SQLite itself would let it in between two transactions. The file stays, because removing it
    could take it from under a process that is just locking it.
    """

    def __init__(self, store_path: str) -> None:
        """Raises StoreLocked naming the other process, ConfigError when it cannot be written."""
        path = f"{store_path}.lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot write the store {store_path}: {path}: {error.strerror}"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            owner = os.pread(self._file, 32, 0).decode(errors="replace") or "unknown"
            os.close(self._file)
            raise StoreLocked(
                f"{store_path} is already open for writing by process {owner}; one engine writes a "
                "store at a time (`seckill audit` and `seckill inspect` can read it meanwhile)"
            ) from None
        except OSError as error:
            os.close(self._file)
            raise ConfigError(f"cannot lock {path}: {error.strerror}") from None

    def release(self) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)


def open_for_writing(path: str) -> apsw.Connection:
    """Open the one connection that writes. Raises ConfigError or StoreUnavailable."""
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        raise translate(error, f"cannot open {path}") from error
    try:
        _set_up(connection)
        if connection.readonly("main"):
            raise ConfigError(f"cannot write the store {path}: it is read-only")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # Only macOS knows these: its fsync alone does not reach the medium.
        connection.execute("PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        check_durability(connection, path)
    except BaseException as error:
        connection.close(True)
        raise translate(error, f"cannot open {path}") from error
    return connection


def open_for_reading(path: str) -> apsw.Connection:
    """Open a connection that cannot write and never checkpoints. Raises StoreUnavailable.

    Checkpoints belong to the connection that writes: two of them racing is how SQLite lost data in
    versions before 3.51.3 (the "WAL-reset" bug).
    """
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            _set_up(connection)
            connection.wal_autocheckpoint(0)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        except BaseException:
            connection.close(True)
            raise
    except apsw.Error as error:
        raise translate(error, f"cannot open {path}") from error
    return connection


def _set_up(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    # Else a misspelt column name in double quotes would silently be a text.
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)


def check_durability(connection: apsw.Connection, path: str) -> None:
    """Read back what was asked for. Raises ConfigError when a commit would not reach the disk."""
    journal = connection.pragma("journal_mode")
    if journal != "wal":
        raise ConfigError(
            f"{path}: SQLite keeps its journal in mode {journal!r} where 'wal' was asked for; "
            "a network file system cannot hold a store"
        )
    synchronous = connection.pragma("synchronous")
    if synchronous != _SYNCHRONOUS_FULL:
        raise ConfigError(
            f"{path}: SQLite runs with synchronous = {synchronous!r} where {_SYNCHRONOUS_FULL} "
            "(FULL) was asked for; an acknowledged order could be lost with the power"
        )


def translate(error: BaseException, action: str) -> BaseException:
    """The error of the port for what a driver or the system raised while nothing was committed.

    Errors of the port, and what is no Exception, come back as they are.
    """
    if isinstance(error, StoreError | ConfigError) or not isinstance(error, Exception):
        return error
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreUnavailable(f"{action}: another program holds the lock of the database")
    if isinstance(error, apsw.FullError):
        return StoreUnavailable(f"{action}: the disk is full")
    return StoreUnavailable(f"{action}: {str(error) or type(error).__name__}")
