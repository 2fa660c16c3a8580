"""Documents encoded by Ray Data on this machine: the messages that the wire makes by itself, and a bad one that loses no other."""

import os

import pytest

import latentwire as lw
from test_wire_folder import TEXT

ray = pytest.importorskip("ray")

from latentwire.corpora import encode_dataset  # noqa: E402


@pytest.fixture(scope="module")
def cluster(home):
    variables = {"LATENTWIRE_CACHE": os.environ["LATENTWIRE_CACHE"], "OMP_NUM_THREADS": "1"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    yield
    ray.shutdown()


def test_a_dataset_is_encoded_as_the_wire_encodes_it_and_a_bad_document_is_named(cluster, trained):
    texts = {f"{number}.txt": f"{TEXT} " * (number + 1) for number in range(5)} | {"empty.txt": ""}
    dataset = ray.data.from_items([{"name": name, "text": text, "more": 1} for name, text in texts.items()])
    rows = {row["name"]: row for row in encode_dataset(dataset, str(trained), 8, "int8", batch=4).take_all()}
    assert set(rows) == set(texts)
    wire = lw.Wire.load(trained)
    for name, text in texts.items():
        row = rows[name]
        if name == "empty.txt":
            assert (row["message"], "empty" in row["error"]) == (b"", True)
            continue
        message = lw.unpack(row["message"])
        assert (message.name, row["error"], message.header.codec) == (name, "", "int8")
        assert message.header.source == lw.wire_format.digest(text)
        expected = lw.unpack(lw.pack(wire.encode([text], 8, "int8")[0])).latent()
        assert message.latent().payload == pytest.approx(expected.payload, abs=0.02)
