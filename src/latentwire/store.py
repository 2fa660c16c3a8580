"""`Store`: latents kept on disk under the hash of their message, with what is known of their source, and when they expire.

message ─ put ─▶ id ─ get ─▶ message                       one SQLite file in WAL mode, shared by threads and processes

What `put` has returned an id for is on the disk: a killed process, or the machine's power, takes only what was not acknowledged.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latentwire.atomic import atomic_write
from latentwire.errors import ExpiryError, NotStoredError, StoreError
from latentwire.wire_format import unpack
from latentwire.wire_header import DEFAULT, Limits

VERSION = 1
WAIT_SECONDS = 10.0  # for another process to let go of the file
SCHEMA = """
CREATE TABLE IF NOT EXISTS latents (
    id TEXT PRIMARY KEY, message BLOB NOT NULL, name TEXT NOT NULL, space TEXT NOT NULL, codec TEXT NOT NULL,
    vectors INTEGER NOT NULL, width INTEGER NOT NULL, source_tokens INTEGER NOT NULL, source TEXT NOT NULL, size INTEGER NOT NULL,
    metadata TEXT NOT NULL, created REAL NOT NULL, expires REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_expiry ON latents (expires) WHERE expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_source ON latents (source, space);
"""
KNOWN = "id, name, space, codec, vectors, width, source_tokens, source, size, metadata, created, expires"
ALIVE = "(expires IS NULL OR expires > ?)"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store knows of a latent.

    Attributes:
        id: 32 hex digits, of the message's SHA-256.
        name: What the sender called it.
        space: Fingerprint of the latent space.
        codec: Name of the codec.
        vectors: Number of vectors `M`.
        width: Values in each, `d`.
        source_tokens: Tokens that it stands for.
        source: Digest of its text, 32 hex digits.
        size: Bytes of the message.
        metadata: What was given with it.
        created: Seconds since 1970.
        expires: Seconds since 1970, or None.
    """

    id: str
    name: str
    space: str
    codec: str
    vectors: int
    width: int
    source_tokens: int
    source: str
    size: int
    metadata: dict[str, str]
    created: float
    expires: float | None


class Store:
    """Latents on disk.

    Args:
        path: The file; made, with its folder, where missing.
        limits: What a message may be.

    Raises:
        StoreError: The file cannot be opened, is no store, or was made by a later version.
    """

    def __init__(self, path: Path | str, limits: Limits = DEFAULT) -> None:
        self.path, self.limits = Path(path), limits
        self._threads = threading.local()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refusal(error) from None
        with self._at() as base:
            version = base.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StoreError(
                    f"expected a store of version {VERSION} at {self.path}, got {version}; update latentwire"
                )
            if version < VERSION:
                base.executescript(SCHEMA)
                base.execute(f"PRAGMA user_version = {VERSION}")

    def put(self, message: bytes, metadata: Mapping[str, str] | None = None, expires: float | None = None) -> str:
        """Keep a message; returns its id. The same message again takes the new metadata and expiry.

        Raises:
            LatentError: The message is damaged or beyond the limits.
            ExpiryError: An expiry in the past.
            StoreError: The disk is full, read-only or locked.
        """
        now = time.time()
        if expires is not None and expires <= now:
            raise ExpiryError(f"expected an expiry in the future, got {expires:.0f} at {now:.0f} (seconds since 1970)")
        header = unpack(message, limits=self.limits)
        known = header.header
        name = hashlib.sha256(message).hexdigest()[:32]
        row = (name, message, header.name, known.space, known.codec, known.vectors, known.width, known.source_tokens)
        row += (known.source.hex(), len(message), json.dumps(dict(metadata or {})), now, expires)  # type: ignore[assignment]
        with self._at() as base:
            base.execute(
                f"INSERT INTO latents VALUES ({', '.join('?' * len(row))})"
                " ON CONFLICT (id) DO UPDATE SET metadata = excluded.metadata, expires = excluded.expires",
                row,
            )
        return name

    def get(self, name: str) -> bytes:
        """The message with an id.

        Raises:
            NotStoredError: It is not there, was deleted, or has expired.
        """
        with self._at() as base:
            found = base.execute(
                f"SELECT message FROM latents WHERE id = ? AND {ALIVE}", (name, time.time())
            ).fetchone()
        if found is None:
            raise NotStoredError(
                f"expected the id of a stored latent, got '{name}', which is unknown, deleted or expired"
            )
        return bytes(found[0])

    def entry(self, name: str) -> Entry:
        """What is known of the latent with an id. Raises as `get`."""
        with self._at() as base:
            query = f"SELECT {KNOWN} FROM latents WHERE id = ? AND {ALIVE}"
            found = base.execute(query, (name, time.time())).fetchone()
        if found is None:
            raise NotStoredError(
                f"expected the id of a stored latent, got '{name}', which is unknown, deleted or expired"
            )
        return _entry(found)

    def find(self, source: str, space: str) -> list[Entry]:
        """What was made of the text with a digest in a latent space, newest first: who has it need not encode again."""
        with self._at() as base:
            query = f"SELECT {KNOWN} FROM latents WHERE source = ? AND space = ? AND {ALIVE} ORDER BY created DESC"
            return [_entry(row) for row in base.execute(query, (source, space, time.time()))]

    def list(self, limit: int = 100, after: str = "") -> list[Entry]:
        """Entries in the order of their ids, from the one after `after` on."""
        with self._at() as base:
            query = f"SELECT {KNOWN} FROM latents WHERE id > ? AND {ALIVE} ORDER BY id LIMIT ?"
            return [_entry(row) for row in base.execute(query, (after, time.time(), limit))]

    def delete(self, name: str) -> bool:
        """Forget a latent; whether it was there."""
        with self._at() as base:
            return base.execute("DELETE FROM latents WHERE id = ?", (name,)).rowcount > 0

    def gc(self) -> int:
        """Drop what has expired and give its space back; how many there were."""
        with self._at() as base:
            dropped = base.execute(f"DELETE FROM latents WHERE NOT {ALIVE}", (time.time(),)).rowcount
        with self._at() as base:
            base.execute("VACUUM")
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(dropped)

    def export(self, path: Path) -> int:
        """Write all messages, one after another, into a file that `latentwire inspect` and `answer` read; how many there were."""
        count = 0

        def fill(partial: Path) -> None:
            nonlocal count
            with partial.open("wb") as file, self._at() as base:
                for (message,) in base.execute(
                    f"SELECT message FROM latents WHERE {ALIVE} ORDER BY id", (time.time(),)
                ):
                    file.write(message)
                    count += 1

        atomic_write(path, fill)
        return count

    def close(self) -> None:
        """Close this thread's connection."""
        base = getattr(self._threads, "base", None)
        if base is not None:
            base.close()
            del self._threads.base

    @contextmanager
    def _at(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; each statement is a transaction of its own, on the disk when it returns."""
        try:
            base = getattr(self._threads, "base", None)
            if base is None:
                base = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
                base.execute("PRAGMA journal_mode = WAL")
                base.execute("PRAGMA synchronous = FULL")
                self._threads.base = base
            yield base
        except (sqlite3.Error, OSError) as error:
            raise self._refusal(error) from None

    def _refusal(self, error: Exception) -> StoreError:
        return StoreError(
            f"expected a store that can be read and written at {self.path}, got: {error}; check the path, its permissions and"
            " the space on the disk. What was stored is kept"
        )


def _entry(row: tuple[str, str, str, str, int, int, int, str, int, str, float, float | None]) -> Entry:
    return Entry(*row[:9], json.loads(row[9]), *row[10:])
