"""The store: what was acknowledged is there, whatever is killed; what has expired is not; every refusal says why."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from latentwire.errors import ChecksumError, LimitError, NotStoredError, StoreError
from latentwire.latent import Latent
from latentwire.store import Store
from latentwire.wire_format import digest, pack, unpack_all
from latentwire.wire_header import Limits

WRITER = """
import sys, numpy as np
from latentwire import Latent, pack
from latentwire.store import Store
store, seed = Store(sys.argv[1]), int(sys.argv[2])
for number in range(10_000):
    rows = np.random.default_rng([seed, number]).normal(size=(40, 16)).astype("float32")
    print(store.put(pack(Latent(rows, "fp16", "s", 1), f"{seed}-{number}")), flush=True)
"""


def message(number=0, **fields):
    rows = np.full((2, 3), number, np.float32)
    return pack(Latent(rows, "fp16", "s", 7), f"text {number}", digest(f"{number}"), **fields)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "below" / "latents.db")


def test_what_is_put_comes_back_by_its_id_with_what_was_said_of_it(store):
    later = time.time() + 60
    name = store.put(message(1), {"url": "a.txt"}, later)
    assert store.get(name) == message(1)
    entry = store.entry(name)
    assert (entry.name, entry.space, entry.codec, entry.vectors, entry.width) == ("text 1", "s", "fp16", 2, 3)
    assert (entry.source_tokens, entry.size, entry.metadata, entry.expires) == (
        7,
        len(message(1)),
        {"url": "a.txt"},
        later,
    )
    assert [one.id for one in store.find(digest("1").hex(), "s")] == [name]
    assert store.find(digest("1").hex(), "another space") == []


def test_the_same_message_has_one_id_and_its_last_metadata(store):
    assert store.put(message(1), {"a": "1"}) == store.put(message(1), {"b": "2"})
    assert [entry.metadata for entry in store.list()] == [{"b": "2"}]


def test_a_list_goes_on_after_an_id(store):
    names = sorted(store.put(message(number)) for number in range(5))
    assert [entry.id for entry in store.list(2)] == names[:2]
    assert [entry.id for entry in store.list(9, after=names[1])] == names[2:]


def test_deleted_and_expired_latents_are_gone(store):
    gone, short, kept = store.put(message(1)), store.put(message(2), expires=time.time() + 0.05), store.put(message(3))
    assert [store.delete(gone), store.delete(gone)] == [True, False]
    time.sleep(0.1)
    for name in (gone, short, "f" * 32):
        with pytest.raises(NotStoredError, match="unknown, deleted or expired"):
            store.get(name)
        with pytest.raises(NotStoredError, match="unknown, deleted or expired"):
            store.entry(name)
    assert [entry.id for entry in store.list()] == [kept]
    assert store.gc() == 1
    assert store.gc() == 0


def test_gc_gives_the_disk_back(store):
    rows = np.random.default_rng(0).normal(size=(400, 500)).astype(np.float32)
    store.put(pack(Latent(rows, "fp32", "s", 1)), expires=time.time() + 0.05)
    store.put(message(1))
    time.sleep(0.1)
    store.gc()
    assert sum(path.stat().st_size for path in store.path.parent.iterdir()) < rows.nbytes / 2


def test_an_export_is_all_messages_one_after_another(store, tmp_path):
    sent = {message(number) for number in range(3)}
    for one in sent:
        store.put(one)
    assert store.export(tmp_path / "all.lw") == 3
    data = (tmp_path / "all.lw").read_bytes()
    assert {found.name for found in unpack_all(data)} == {"text 0", "text 1", "text 2"}
    assert len(data) == sum(map(len, sent))


def test_a_damaged_or_large_message_is_not_kept(store):
    with pytest.raises(ChecksumError):
        store.put(message(1)[:-1] + b"\1")
    with pytest.raises(LimitError):
        Store(store.path, Limits(message_bytes=64)).put(message(1))
    assert store.list() == []


def test_an_expiry_in_the_past_is_refused(store):
    with pytest.raises(StoreError, match="expiry in the future"):
        store.put(message(1), expires=time.time() - 1)


def test_what_is_no_store_is_refused_and_left_alone(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("not a database, " * 100)
    with pytest.raises(StoreError, match=r"notes\.txt"):
        Store(other)
    assert other.read_text() == "not a database, " * 100
    later = tmp_path / "later.db"
    with sqlite3.connect(later) as base:
        base.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError, match=r"version 1 .* got 9"):
        Store(later)


def test_a_locked_store_is_named_and_loses_nothing(store, monkeypatch):
    name = store.put(message(1))
    monkeypatch.setattr("latentwire.store.WAIT_SECONDS", 0.05)
    store.close()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.put(message(2))
    assert store.get(name) == message(1)
    other.execute("ROLLBACK")
    store.put(message(2))


def test_a_read_only_store_is_named(store):
    store.put(message(1))
    store._threads.base.execute("PRAGMA query_only = 1")  # as root, permissions alone stop nobody
    with pytest.raises(StoreError, match=r"readonly|read-only"):
        store.put(message(2))


def test_a_full_disk_is_named_and_loses_nothing(store):
    name = store.put(message(1))
    store._threads.base.execute("PRAGMA max_page_count = 1")
    rows = np.random.default_rng(0).normal(size=(400, 500)).astype(np.float32)
    with pytest.raises(StoreError, match="full"):
        store.put(pack(Latent(rows, "fp32", "s", 1)))
    assert store.get(name) == message(1)


def test_threads_share_a_store(store):
    names = []

    def put(first):
        names.extend(store.put(message(number)) for number in range(first, first + 20))

    threads = [threading.Thread(target=put, args=(20 * place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.id for entry in store.list(100)} == set(names)
    assert len(names) == 80


def test_a_process_that_is_killed_while_writing_loses_nothing_it_acknowledged(tmp_path):
    path, known = tmp_path / "latents.db", set()
    for turn in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path, str(turn)], stdout=subprocess.PIPE, text=True)
        for count, line in enumerate(writer.stdout):
            if line.endswith("\n"):
                known.add(line.strip())
            if count == 5 + 7 * turn:
                os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        store = Store(path)
        for name in known:
            assert store.get(name)
        store.close()
    assert len(known) >= sum(6 + 7 * turn for turn in range(6))
    with sqlite3.connect(path) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
