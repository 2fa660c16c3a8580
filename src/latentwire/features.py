"""`FeatureStore`: the encoder's spans of windows of text, computed once and kept on disk.

window of token ids ─▶ key ─▶ kept [m] uint16, rank [m] uint16, states [m, 2 K, D] bf16, in one LMDB file

An entry is written as a whole or not at all, so filling goes on where a kill stopped it.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import numpy as np
import torch

from latentwire.encoder import Encoder, Spans, Window
from latentwire.errors import FeatureError

IDENTITY = b"identity"
PAGE = 4096
TOKENS_AT_ONCE = 4096
PLACE_BYTES = 4


class FeatureStore:
    """Features on disk. Use it as a context manager, or close it: a process opens a folder once at a time.

    Args:
        folder: Where the file lives; made when missing.
        encoder: Whose features are kept. A folder holds those of one encoder, layers, pool and dtype.
        limit_bytes: The most that the file may come to hold.

    Raises:
        FeatureError: The folder holds another encoder's features, or cannot be opened.
    """

    def __init__(self, folder: Path, encoder: Encoder, limit_bytes: int) -> None:
        self.folder, self.encoder, self.limit_bytes = folder, encoder, limit_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = lmdb.open(str(folder), map_size=2 * limit_bytes + 64 * PAGE, readahead=False)
        except (OSError, lmdb.Error) as error:
            raise FeatureError(
                f"expected to open features in {folder}, got: {error}; set another LATENTWIRE_CACHE"
            ) from None
        with self._file.begin(write=True) as transaction:
            transaction.put(IDENTITY, encoder.features.encode(), overwrite=False)
            found = bytes(transaction.get(IDENTITY) or b"").decode()
        if found != encoder.features:
            self.close()
            raise FeatureError(
                f"expected features of {encoder.features} in {folder}, got those of {found}; set another LATENTWIRE_CACHE, or"
                " delete the folder"
            )

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free."""
        self._file.close()

    def __contains__(self, window: Window) -> bool:
        with self._file.begin() as transaction:
            return transaction.get(_key(window)) is not None

    def missing(self, windows: Sequence[Window]) -> list[Window]:
        """Those of `windows` that are not there yet, each once, shortest first."""
        distinct = dict.fromkeys(windows)
        return sorted((window for window in distinct if window not in self), key=len)

    def bytes_for(self, windows: Sequence[Window]) -> int:
        """Bytes that `fill` would add."""
        return sum(self._size(window) for window in self.missing(windows))

    def fill(
        self, windows: Sequence[Window], progress: Callable[[float, str], None] = lambda done, remark: None
    ) -> None:
        """Compute what is missing, and keep it.

        Raises:
            FeatureError: It would not fit `limit_bytes`, said before anything is computed; or the disk is full.
        """
        due = self.missing(windows)
        needed, held = sum(map(self._size, due)), self._held()
        if held + needed > self.limit_bytes:
            raise FeatureError(
                f"expected features of at most {self.limit_bytes / 2**20:,.0f} MiB in {self.folder}, got"
                f" {held / 2**20:,.0f} MiB there and {needed / 2**20:,.0f} MiB to come; raise --cache-limit, or take fewer"
                " examples or layers"
            )
        done = 0
        while done < len(due):
            batch = _batch(due, done)
            self._keep(batch, self.encoder.spans(batch))
            done += len(batch)
            progress(done / len(due), f"{done}/{len(due)} windows")

    def spans(self, window: Window) -> Spans:
        """Spans of a window that is there.

        Raises:
            FeatureError: It is not there, or is damaged.
        """
        with self._file.begin() as transaction:
            data = transaction.get(_key(window))
        if data is None:
            raise FeatureError(
                f"expected features of a window of {len(window)} tokens, found none; fill the store first"
            )
        if len(data) != self._size(window):
            raise FeatureError(
                f"expected {self._size(window)} bytes of features, got {len(data)}; delete {self.folder} and start anew"
            )
        count = -(-len(window) // self.encoder.pool)
        kept, rank = torch.from_numpy(np.frombuffer(data, "<u2", 2 * count).astype(np.int64)).view(2, count)
        values = np.frombuffer(data, np.int16, offset=PLACE_BYTES * count).copy()
        states = torch.from_numpy(values).view(torch.bfloat16)
        return Spans(kept, rank, states.view(count, -1, self.encoder.reader.width), len(window))

    def _keep(self, windows: Sequence[Window], found: Sequence[Spans]) -> None:
        try:
            with self._file.begin(write=True) as transaction:
                for window, spans in zip(windows, found, strict=True):
                    places = torch.cat([spans.kept, spans.rank]).numpy().astype("<u2").tobytes()
                    states = spans.states.contiguous().view(torch.int16).numpy().tobytes()
                    transaction.put(_key(window), places + states)
        except lmdb.Error as error:
            raise FeatureError(
                f"expected to write features in {self.folder}, got: {error}; free space. What was written is kept"
            ) from None

    def _size(self, window: Window) -> int:
        return -(-len(window) // self.encoder.pool) * span_bytes(len(self.encoder.layers), self.encoder.reader.width)

    def _held(self) -> int:
        """Bytes of the entries, in whole pages."""
        kept = self._file.stat()
        return PAGE * int(kept["overflow_pages"] + kept["leaf_pages"] + kept["branch_pages"])


def span_bytes(layers: int, width: int) -> int:
    """Bytes of one span: place and rank of its token, `2 K * D` values in bf16."""
    return PLACE_BYTES + 2 * 2 * layers * width


def _key(window: Window) -> bytes:
    return hashlib.sha256(np.array(window, dtype="<u4").tobytes()).digest()


def _batch(due: Sequence[Window], first: int) -> list[Window]:
    """Windows from `first` on whose padded tokens stay within what is read at once; at least one. They rise in length."""
    last = first + 1
    while last < len(due) and (last + 1 - first) * len(due[last]) <= TOKENS_AT_ONCE:
        last += 1
    return list(due[first:last])
