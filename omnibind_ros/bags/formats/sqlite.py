"""Reading SQLite recordings of rosbag2, damaged ones included: what is lost is counted, the rest is read."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from omnibind_ros.bags.storage import Connection, Losses, Raw, UnreadableError, full_type, is_latched
from omnibind_ros.bags.types import unreadable

_FORMATS = {"ros2msg": "msg", "ros2idl": "idl", "unknown": ""}
_LEAST_ROW = 16  # bytes of a message in a file
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter where the complaint itself quotes damaged bytes


class SqliteFile:
    """A database of rosbag2; see :class:`omnibind_ros.bags.storage.Storage`.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        UnreadableError: It is no such database, or its tables are damaged.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:  # SQLite says less of what cannot be read
            if file.read(16) != b"SQLite format 3\0":
                raise UnreadableError(f"{path.name} does not begin like an SQLite database")
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.losses = Losses()
        self._path, status = path.absolute(), path.stat()
        self._size, self._modified_ns = status.st_size, status.st_mtime_ns
        try:
            self._database = self._open(path)
            self._database.text_factory = lambda text: text.decode("utf-8", "replace")
            self.connections = self._connections()
            self.span_ns = self._span()
        except UnreadableError:
            self.close()
            raise
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.close()
            raise UnreadableError(f"{path.name}: {error}") from error

    def _open(self, path: Path) -> sqlite3.Connection:
        """The database as it is, without locks; with the log of a recorder that has crashed, a copy of both."""
        path = path.absolute()
        logs = [log for end in ("-wal", "-journal") if (log := Path(f"{path}{end}")).is_file() and log.stat().st_size]
        if logs:
            self._folder = tempfile.TemporaryDirectory(prefix="omnibind-bag-")
            for file in (path, *logs):
                shutil.copyfile(file, Path(self._folder.name, file.name))
            return sqlite3.connect(Path(self._folder.name, path.name), check_same_thread=False)
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        try:
            database.execute("SELECT * FROM sqlite_master").fetchall()
        except _DAMAGE:  # a file that is shorter than it says; whole pages may be read nevertheless
            database.execute("PRAGMA writable_schema=ON")
            self.losses.cut = True
        return database

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._database.execute(query, values).fetchall()

    def _connections(self) -> list[Connection]:
        columns = {row[1] for row in self._rows("PRAGMA table_info(topics)")}
        if not columns or not self._rows("PRAGMA table_info(messages)"):
            raise UnreadableError("the database has no tables of topics and messages")
        profiles = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        definitions: dict[str, tuple[str, str]] = {}
        if self._rows("PRAGMA table_info(message_definitions)"):
            for name, kind, text in self._rows(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions ORDER BY id DESC"
            ):
                definitions[str(name)] = (_FORMATS.get(kind, str(kind)), str(text)) if text else ("", "")
        rows = self._rows(f"SELECT id, name, type, serialization_format, {profiles} FROM topics ORDER BY id")
        found = []
        for number, *words in rows:
            topic, name, encoding, qos = (str(word or "") for word in words)  # a damaged page may hold anything
            known = definitions.get(name, ("", ""))
            found.append(Connection(number, topic, full_type(name), *known, encoding, is_latched(qos)))
        return found

    def _span(self) -> tuple[int, int] | None:
        try:
            integers = "WHERE typeof(timestamp) = 'integer'"
            ((start, end),) = self._rows(f"SELECT min(timestamp), max(timestamp) FROM messages {integers}")
        except _DAMAGE:
            times = [time_ns for time_ns, _ in self._one_by_one(set(), Losses())]
            start, end = (min(times), max(times)) if times else (None, None)
        return None if start is None else (start, end)

    def count(self, number: int) -> int:
        """Messages of a topic; 0 if unknown."""
        try:
            return int(self._rows("SELECT count(*) FROM messages WHERE topic_id = ?", number)[0][0])
        except _DAMAGE:
            return 0

    def messages(self, wanted: Collection[int], start_ns: int) -> Iterator[Raw]:
        """Messages of topics since a time, in the order of their times; those that are damaged are counted."""
        numbers = ",".join(map(str, wanted))
        where = f"FROM messages WHERE topic_id IN ({numbers}) AND timestamp >= ?"
        done: set[int] = set()
        # Looking at all pages takes as long as reading all: for a topic of a large bag, many times as long as itself.
        all_read = not start_ns and all(one.id in wanted or unreadable(one) for one in self.connections)
        try:
            for number, topic, time_ns, data in self._database.execute(
                f"SELECT id, topic_id, timestamp, data {where} ORDER BY timestamp", (start_ns,)
            ):
                done.add(number)
                if isinstance(time_ns, int) and isinstance(data, bytes):
                    yield Raw(topic, time_ns, data)
                else:
                    self.losses.add(1)
            if (
                all_read
                and self._folder is None
                and not self.losses.cut
                and not _is_sound(self._path, self._modified_ns, self._size)
            ):
                self.losses.add(None)
            return
        except _DAMAGE:
            self.losses.add(0)
        for _, number in sorted(self._one_by_one(done, self.losses)):
            try:
                for topic, time_ns, data in self._rows(
                    f"SELECT topic_id, timestamp, data {where} AND id = ?", start_ns, number
                ):
                    if isinstance(time_ns, int) and isinstance(data, bytes):
                        yield Raw(topic, time_ns, data)
                    else:
                        self.losses.messages += 1
            except _DAMAGE:
                self.losses.messages += 1

    def _one_by_one(self, done: Collection[int], losses: Losses) -> list[tuple[int, int]]:
        """Time and number of each message that can still be found, each looked for by itself."""
        try:
            last = self._rows("SELECT max(id) FROM messages")[0][0] or 0
        except _DAMAGE:
            losses.cut = True
            last = self._last_before_damage()
        last = min(last, self._size // _LEAST_ROW)  # a damaged page may hold any number
        found = []
        for number in range(1, last + 1):
            if number in done:
                continue
            try:
                rows = self._rows("SELECT timestamp FROM messages WHERE id = ?", number)
                found += [(row[0], number) for row in rows if isinstance(row[0], int)]
            except _DAMAGE:
                losses.messages += 1
        return found

    def _last_before_damage(self) -> int:
        """Number of the last message that a walk from the first one reaches."""
        last = 0
        try:
            for row in self._database.execute("SELECT id FROM messages ORDER BY id"):
                last = row[0]
        except _DAMAGE:
            pass
        return last

    def close(self) -> None:
        """Closes the database."""
        if hasattr(self, "_database"):
            self._database.close()
        if self._folder is not None:
            self._folder.cleanup()


@functools.lru_cache(maxsize=64)
def _is_sound(path: Path, modified_ns: int, size: int) -> bool:
    """Whether SQLite finds nothing wrong with the pages and indices of a file as it was at a time."""
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        return bool(database.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)])
    except _DAMAGE:
        return False
    finally:
        database.close()
