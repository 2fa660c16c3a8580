"""The client against a real server: what goes in comes out, errors have their names, a busy server is asked again."""

import threading

import httpx
import pytest

import latentwire as lw
from latentwire.client import Client
from latentwire.errors import (
    BusyError,
    LatentError,
    MethodError,
    NotStoredError,
    RequestError,
    ServerError,
    SignatureError,
)
from test_serve import FIRST, SECOND, Running, expected, wire  # noqa: F401  (fixture)
from test_wire_folder import QUESTION, TEXT


@pytest.fixture(scope="module")
def running(wire, home, tmp_path_factory):  # noqa: F811
    made = Running(wire, home, tmp_path_factory.mktemp("store"), keys=("sesame",), secret=b"0123456789abcdef")
    yield made
    made.stop()


@pytest.fixture
def client(running):
    with Client(running.url, "sesame", attempts=3) as made:
        yield made


def test_a_text_is_encoded_once_and_answered_from_by_every_reader(client, wire, home):  # noqa: F811
    latent = client.encode(TEXT, name="a", metadata={"from": "b"})
    assert latent.message(b"0123456789abcdef").name == "a"
    for name in (FIRST, SECOND):
        answer = client.answer(QUESTION, [latent], name, max_tokens=16)
        assert answer.text == expected(wire, home, name)
        assert "".join(client.stream(QUESTION, [latent], name, max_tokens=16)) == answer.text
        assert (answer.latent_bytes, answer.finish in ("stop", "length")) == (len(latent.message().payload), True)
    unkept = client.encode(TEXT, store=False)
    assert unkept.id is None
    assert client.answer(QUESTION, [unkept], SECOND, max_tokens=16).text == answer.text
    assert client.answer(QUESTION, ["Some text.", unkept], SECOND, max_tokens=4).positions > answer.positions


def test_stored_latents_are_listed_fetched_and_forgotten(client):
    latent = client.encode("One text and another.", data=False)
    with pytest.raises(LatentError, match="fetch it"):
        latent.message()
    assert client.get(latent.id).message().header.vectors == latent.vectors
    assert latent.id in [entry["id"] for entry in client.list()]
    client.delete(latent.id)
    for act in (lambda: client.get(latent.id), lambda: client.delete(latent.id)):
        with pytest.raises(NotStoredError, match="unknown, deleted or expired"):
            act()


def test_errors_have_the_names_they_have_there(client, running):
    with pytest.raises(MethodError, match="4, 8, 16"):
        client.encode(TEXT, compression=5)
    with pytest.raises(LatentError, match="codec"):
        client.encode(TEXT, codec="utf8")
    with pytest.raises(RequestError, match="n, got 2"):
        client.answer(QUESTION, ["x"], FIRST, n=2)
    with pytest.raises(lw.errors.UnknownReaderError, match="GET /v1/models"):
        client.answer(QUESTION, ["x"], "none")
    latent = lw.client.RemoteLatent(None, lw.pack(running.server.wire.encode([TEXT])[0]), 1, "", 1)
    with pytest.raises(SignatureError):
        client.answer(QUESTION, [latent], FIRST)
    with Client(running.url, "wrong") as stranger, pytest.raises(ServerError, match="API key"):
        stranger.models()
    with Client("http://127.0.0.1:9", attempts=1) as nowhere, pytest.raises(ServerError, match="start it"):
        nowhere.models()


def test_a_busy_server_is_asked_again_and_in_the_end_given_up(monkeypatch):
    waits, answers = [], iter([429, 503, 200, 429, 429, 429])
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)

    def answer(request):
        status = next(answers)
        body = (
            {"data": []}
            if status == 200
            else {"error": {"message": "later", "type": "", "param": None, "code": "BusyError"}}
        )
        return httpx.Response(status, json=body, headers={"Retry-After": "3"})

    with Client("http://server", attempts=3, transport=httpx.MockTransport(answer)) as client:
        assert client.models() == []
        assert len(waits) == 2
        assert min(waits) >= 3
        with pytest.raises(BusyError, match="later"):
            client.models()


def test_leaving_a_stream_stops_the_servers_work(client, running):
    stream = client.stream(QUESTION, [TEXT], FIRST, max_tokens=1000, temperature=2.0)
    next(stream)
    stream.close()
    idle = threading.Event()
    for _ in range(250):
        if not running.server.engine.running:
            break
        idle.wait(0.02)
    assert running.server.engine.running == 0
