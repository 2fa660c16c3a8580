"""Corpora beyond one machine: documents encoded by Ray Data, each worker with the wire in memory. Needs the extra `ray`.

dataset of {name, text} ─ encode_dataset ─▶ dataset of {name, message, error}, in the same order

ray.data.read_json("s3://.../*.jsonl") in, `.write_parquet(...)` or `Store.put` of each message out; what fails is a row with an error.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.data import ActorPoolStrategy, Dataset

from latentwire.errors import LatentWireError
from latentwire.wire import Wire
from latentwire.wire_format import digest, pack


class EncodeBatch:
    """What a worker does: it loads the wire once and encodes batches.

    Args:
        wire: A wire's folder, or its name on the hub, where the worker finds it.
        compression: One that the wire serves; its own if None.
        codec: One that it sends in; int4 if None.
        key: Signs messages, if given.
    """

    def __init__(self, wire: str, compression: int | None, codec: str | None, key: bytes | None) -> None:
        self.wire, self.compression, self.codec, self.key = Wire.from_pretrained(wire), compression, codec, key

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        """Names, messages and errors of a batch of `name` and `text`: all at once or, where a text is refused, one by one."""
        names, texts = [str(name) for name in batch["name"]], [str(text) for text in batch["text"]]
        try:
            found: Sequence[Any] = self._messages(names, texts)
        except LatentWireError:
            found = [self._message(name, text) for name, text in zip(names, texts, strict=True)]
        return {
            "name": names,
            "message": [one if isinstance(one, bytes) else b"" for one in found],
            "error": ["" if isinstance(one, bytes) else str(one) for one in found],
        }

    def _messages(self, names: Sequence[str], texts: Sequence[str]) -> list[bytes]:
        latents = self.wire.encode(texts, self.compression, self.codec)
        return [
            pack(latent, name, digest(text), self.key) for latent, name, text in zip(latents, names, texts, strict=True)
        ]

    def _message(self, name: str, text: str) -> bytes | LatentWireError:
        try:
            return self._messages([name], [text])[0]
        except LatentWireError as error:
            return error


def encode_dataset(
    dataset: Dataset,
    wire: str,
    compression: int | None = None,
    codec: str | None = None,
    key: bytes | None = None,
    workers: int = 1,
    batch: int = 16,
    **resources: Any,
) -> Dataset:
    """Rows `{name, text}` as rows `{name, message, error}`; nothing is computed before they are asked for.

    Args:
        dataset: Documents; other columns are dropped.
        wire: As `EncodeBatch`.
        compression: As `EncodeBatch`.
        codec: As `EncodeBatch`.
        key: As `EncodeBatch`.
        workers: Processes that hold the wire.
        batch: Documents that are encoded together.
        resources: Of a worker, as Ray names them: `num_cpus`, `num_gpus`.
    """
    return dataset.select_columns(["name", "text"]).map_batches(
        EncodeBatch,
        fn_constructor_args=(wire, compression, codec, key),
        batch_size=batch,
        compute=ActorPoolStrategy(size=workers),
        **resources,
    )
