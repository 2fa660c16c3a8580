"""The server as its clients meet it: the official OpenAI client over a real socket, bad requests, keys, limits, leaving clients."""

import base64
import json
import threading
import time

import httpx
import numpy as np
import openai
import pytest
import uvicorn

import latentwire as lw
from latentwire.latent import Latent
from latentwire.serve.app import Server, Settings, build_app
from latentwire.store import Store
from latentwire.wire_format import pack, unpack
from test_wire_folder import QUESTION, TEXT

FIRST, SECOND = "tiny-llama", "tiny-gemma3"


class Running:
    """A server on a port of its own."""

    def __init__(self, wire, models, folder, **fields):
        readers = {name: wire.open_reader(str(models / name)) for name in (FIRST, SECOND)}
        self.server = Server(wire, readers, Store(folder / "latents.db"), Settings(**fields))
        config = uvicorn.Config(build_app(self.server), port=0, log_level="error", timeout_graceful_shutdown=20)
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run, daemon=True)
        self.thread.start()
        while not self.uvicorn.started:
            time.sleep(0.01)
        port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def stop(self):
        self.http.close()
        self.uvicorn.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def wire(trained):
    return lw.Wire.load(trained)


@pytest.fixture(scope="module")
def running(wire, home, tmp_path_factory):
    made = Running(wire, home, tmp_path_factory.mktemp("store"))
    yield made
    made.stop()


def latent_part(wire, text=TEXT):
    return {"type": "latent", "data": base64.b64encode(pack(wire.encode([text])[0])).decode()}


def asked(*parts, question=QUESTION):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def expected(wire, home, name, text=TEXT, question=QUESTION):
    reader = wire.open_reader(str(home / name))
    return reader.answer(wire.prefix(wire.encode([text]), reader), question, 16).text


def refused(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_latent_in_a_message_is_answered_as_the_wire_answers_it(running, wire, home, name):
    messages = asked(latent_part(wire))
    answer = running.openai.chat.completions.create(model=name, messages=messages, max_tokens=16)
    assert answer.choices[0].message.content == expected(wire, home, name)
    assert answer.usage.latent_bytes == lw.codecs.CODECS["int4"].size(*wire.encode([TEXT])[0].payload.shape)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    stream = running.openai.chat.completions.create(
        model=name, messages=messages, max_tokens=16, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        answer.choices[0].message.content
    )
    assert chunks[-1].usage.prompt_tokens == answer.usage.prompt_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == answer.choices[0].finish_reason


def test_text_is_answered_as_the_reader_answers_it(running, home):
    reader = running.server.readers[FIRST]
    prompt = reader.prompter.around(QUESTION, 0)
    text = reader.embed(np_ids(reader.prompter.slot(TEXT).ids))
    state = reader.prefill(reader.lay_in([prompt], lw_prefix(text)), 16)
    answer = running.openai.chat.completions.create(
        model=FIRST, messages=asked({"type": "text", "text": TEXT}), max_tokens=16
    )
    assert answer.choices[0].message.content == reader.generate(state, 16)[0].text
    assert answer.usage.latent_bytes == 0


def np_ids(ids):
    import torch

    return torch.tensor(ids)


def lw_prefix(rows):
    from latentwire.reader import Prefix

    return Prefix.stack([rows])


def test_a_text_is_encoded_stored_fetched_answered_from_and_forgotten(running, wire, home):
    made = running.http.post("/v1/latents", json={"text": TEXT, "name": "a", "metadata": {"url": "x"}}).json()
    message = unpack(base64.b64decode(made["data"]))
    np.testing.assert_array_equal(message.latent().payload, wire.encode([TEXT])[0].payload)
    assert (made["vectors"], made["space"], message.name) == (message.header.vectors, wire.method.space, "a")
    kept = running.http.get(f"/v1/latents/{made['id']}").json()
    assert (kept["data"], kept["metadata"]) == (made["data"], {"url": "x"})
    assert made["id"] in [entry["id"] for entry in running.http.get("/v1/latents").json()["data"]]
    messages = asked({"type": "latent", "id": made["id"]})
    answer = running.openai.chat.completions.create(model=SECOND, messages=messages, max_tokens=16)
    assert answer.choices[0].message.content == expected(wire, home, SECOND)
    assert running.http.delete(f"/v1/latents/{made['id']}").json()["deleted"]
    for gone in (running.http.delete(f"/v1/latents/{made['id']}"), running.http.get(f"/v1/latents/{made['id']}")):
        assert "unknown, deleted or expired" in refused(gone, 404)
    body = {"model": FIRST, "messages": messages}
    assert "unknown, deleted or expired" in refused(running.http.post("/v1/chat/completions", json=body), 404)


def test_a_text_that_the_store_has_is_not_encoded_again(running):
    def encodings():
        lines = running.http.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("latentwire_encode_seconds_count"))

    asked = {"text": "The ferry to the island leaves at nine, and again at noon."}
    before = encodings()
    first = running.http.post("/v1/latents", json=asked).json()
    again = running.http.post("/v1/latents", json=asked | {"metadata": {"read": "twice"}, "compression": 4}).json()
    assert encodings() == before + 1
    tokens = first["usage"]["prompt_tokens"]
    assert [one["usage"].pop("prompt_tokens_details") for one in (first, again)] == [
        {"cached_tokens": 0},
        {"cached_tokens": tokens},
    ]
    assert again == first
    assert running.http.get(f"/v1/latents/{first['id']}").json()["metadata"] == {"read": "twice"}
    others = [{"compression": 8}, {"codec": "int8"}, {"name": "b"}, {"text": asked["text"] + " Bring a coat."}]
    for number, other in enumerate(others, 2):
        made = running.http.post("/v1/latents", json=asked | other).json()
        assert encodings() == before + number
        assert made["id"] != first["id"]
    running.http.delete(f"/v1/latents/{first['id']}")
    assert running.http.post("/v1/latents", json=asked | {"store": False}).json()["data"] == first["data"]
    assert encodings() == before + 2 + len(others)


def test_a_conversation_goes_on(running, wire):
    turns = asked(latent_part(wire))
    first = running.openai.chat.completions.create(model=FIRST, messages=turns, max_tokens=8)
    turns += [{"role": "assistant", "content": first.choices[0].message.content or "x"}]
    turns += [{"role": "user", "content": "And when?"}]
    second = running.openai.chat.completions.create(model=FIRST, messages=turns, max_tokens=8)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_text_is_continued_with_and_without_latents(running, wire):
    alone = running.openai.completions.create(model=FIRST, prompt="The river runs", max_tokens=8)
    assert alone.object == "text_completion"
    assert alone.usage.completion_tokens <= 8
    extra = {"latents": [latent_part(wire)]}
    after = running.openai.completions.create(model=FIRST, prompt="The river runs", max_tokens=8, extra_body=extra)
    assert after.usage.prompt_tokens > alone.usage.prompt_tokens
    streamed = running.openai.completions.create(model=FIRST, prompt="The river runs", max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == alone.choices[0].text


def test_many_clients_at_once_get_the_answers_they_get_alone(running, wire):
    texts = [f"{TEXT} It is number {number}." for number in range(8)]
    answers = {}

    def ask(place, name):
        made = running.openai.chat.completions.create(
            model=name, messages=asked(latent_part(wire, texts[place])), max_tokens=12
        )
        answers.setdefault((place, name), []).append(made.choices[0].message.content)

    for _ in range(2):
        threads = [threading.Thread(target=ask, args=(place, name)) for place in range(8) for name in (FIRST, SECOND)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for place in range(8):
        for name in (FIRST, SECOND):
            ask(place, name)
    assert all(len(found) == 3 and len(set(found)) == 1 for found in answers.values()), answers


def test_models_health_and_metrics(running, wire):
    found = running.openai.models.list().data
    assert [model.id for model in found] == [FIRST, SECOND]
    assert found[0].latent_space == wire.method.space
    assert running.http.get("/health").status_code == running.http.get("/ready").status_code == 200
    page = running.http.get("/metrics").text
    assert 'latentwire_requests_total{route="/v1/models",status="200"}' in page
    assert "latentwire_first_token_seconds_bucket" in page


BAD = [
    ({"data": None}, "neither"),
    ({"data": "!!!!"}, "base64"),
    (
        {"data": base64.b64encode(b"not a latent, but long enough to have had a header of a message" * 3).decode()},
        "no latent",
    ),
    ({"id": "0" * 32}, "unknown, deleted or expired"),
    ({"id": "0", "data": "AAAA"}, "both"),
]


@pytest.mark.parametrize(("part", "words"), BAD)
def test_a_bad_latent_is_refused_and_counted(running, part, words):
    before = running.http.get("/metrics").text.count("latentwire_refused_total")
    body = {"model": FIRST, "messages": asked({"type": "latent", **part})}
    status = 404 if "unknown" in words else 400
    assert words in refused(running.http.post("/v1/chat/completions", json=body), status)
    assert running.http.get("/metrics").text.count("latentwire_refused_total") >= max(before, 1)


def test_white_space_in_base64_is_accepted(running, wire):
    data = latent_part(wire)["data"]
    spaced = "\n".join(data[place : place + 60] for place in range(0, len(data), 60)) + "\r\n "
    plain, wrapped = (
        running.openai.chat.completions.create(
            model=FIRST, messages=asked({"type": "latent", "data": given}), max_tokens=8
        )
        .choices[0]
        .message.content
        for given in (data, spaced)
    )
    assert plain == wrapped


def test_latents_that_the_reader_cannot_read_are_refused(running, wire):
    latent = wire.encode([TEXT])[0]
    other = Latent(latent.payload, "fp16", "wire-0000000000000000", 9)
    narrow = Latent(latent.payload[:, :5], "fp16", latent.space, 9)
    text = Latent(np.zeros((3, 1), np.uint32), "ids16", latent.space, 9)
    for wrong, words in ((other, "space"), (text, "expected vectors"), (narrow, "width")):
        part = {"type": "latent", "data": base64.b64encode(pack(wrong)).decode()}
        for parts in ([part], [latent_part(wire), part]):
            answer = running.http.post("/v1/chat/completions", json={"model": FIRST, "messages": asked(*parts)})
            assert words in refused(answer, 400)


def test_more_than_the_reader_can_read_is_refused(running, wire):
    body = {"model": FIRST, "messages": asked(latent_part(wire)), "max_tokens": 4000}
    assert "positions" in refused(running.http.post("/v1/chat/completions", json=body), 400)
    body = {"model": FIRST, "messages": asked(*[latent_part(wire)] * 5)}
    assert "at most 4 latents" in refused(running.http.post("/v1/chat/completions", json=body), 400)
    turn = [*asked(*[latent_part(wire)] * 4), {"role": "assistant", "content": "yes"}]
    body = {"model": FIRST, "messages": [*turn * 16, *asked(latent_part(wire))]}
    assert "at most 64 latents" in refused(running.http.post("/v1/chat/completions", json=body), 400)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_penalty", 0.5),
        ("presence_penalty", 1),
        ("logprobs", True),
        ("n", 2),
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"5": 1}),
    ],
)
def test_what_cannot_work_with_latents_is_refused_in_openais_envelope(running, wire, field, value):
    body = {"model": FIRST, "messages": asked(latent_part(wire)), field: value}
    answer = running.http.post("/v1/chat/completions", json=body)
    assert field in refused(answer, 400)
    assert answer.json()["error"]["param"] == field
    with pytest.raises(openai.BadRequestError, match=field):
        running.openai.chat.completions.create(model=FIRST, messages=body["messages"], extra_body={field: value})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"model": FIRST, "messages": []}, 400),
        ({"model": "none", "messages": [{"role": "user", "content": "x"}]}, 404),
        ({"model": FIRST, "messages": [{"role": "user", "content": []}]}, 400),
        ({"model": FIRST, "messages": [{"role": "assistant", "content": "x"}]}, 400),
        ({"model": FIRST, "messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "x"}]}, 400),
        ({"model": FIRST, "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, 400),
        ({"model": FIRST, "messages": [{"role": "user", "content": "x"}], "temperature": 9}, 400),
        ({"model": FIRST, "messages": [{"role": "user", "content": "x"}], "stop": ["a"] * 5}, 400),
        ({"model": FIRST, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    ],
)
def test_a_wrong_request_is_answered_in_openais_envelope(running, body, status):
    refused(running.http.post("/v1/chat/completions", json=body), status)


def test_bodies_that_are_no_json_and_routes_that_are_none(running):
    refused(running.http.post("/v1/chat/completions", content=b"\xff{"), 400)
    refused(running.http.get("/v1/nothing"), 404)
    refused(running.http.put("/v1/models"), 405)
    refused(running.http.post("/v1/latents", json={"text": ""}), 400)
    assert "4, 8, 16" in refused(running.http.post("/v1/latents", json={"text": "a b", "compression": 5}), 400)
    assert "codec" in refused(running.http.post("/v1/latents", json={"text": "a b", "codec": "utf8"}), 400)
    assert "expiry" in refused(running.http.post("/v1/latents", json={"text": "a b", "expires_in": -5}), 400)


def test_keys_limits_and_signatures(wire, home, tmp_path):
    secret = b"0123456789abcdef"
    made = Running(wire, home, tmp_path, keys=("one", "two"), body_bytes=4096, secret=secret)
    try:
        assert made.http.get("/health").status_code == 200
        assert "API key" in refused(made.http.get("/v1/models"), 401)
        assert "API key" in refused(made.http.get("/metrics", headers={"Authorization": "Bearer three"}), 401)
        assert "Basic" in made.http.get("/playground").headers["WWW-Authenticate"]
        assert made.http.get("/playground", auth=("anyone", "two")).status_code == 200
        assert "API key" in refused(made.http.get("/v1/models", auth=("two", "three")), 401)
        assert "API key" in refused(made.http.get("/v1/models", headers={"Authorization": "Basic ***"}), 401)
        made.http.headers["Authorization"] = "Bearer two"
        assert made.http.get("/v1/models").status_code == 200
        long = {"text": "a " * 4000}
        assert "4,096 bytes" in refused(made.http.post("/v1/latents", json=long), 413)
        parts = (json.dumps(long).encode()[place : place + 500] for place in range(0, 8000, 500))
        assert "4,096 bytes" in refused(made.http.post("/v1/latents", content=parts), 413)
        data = made.http.post("/v1/latents", json={"text": "a b c"}).json()["data"]
        assert unpack(base64.b64decode(data), key=secret).header.signed
        unsigned = asked({"type": "latent", "data": base64.b64encode(pack(wire.encode(["a b c"])[0])).decode()})
        answer = made.http.post("/v1/chat/completions", json={"model": FIRST, "messages": unsigned})
        assert "signature" in refused(answer, 400)
    finally:
        made.stop()


def test_a_client_that_leaves_stops_its_work(running, wire):
    engine = running.server.engine
    body = {
        "model": FIRST,
        "messages": asked(latent_part(wire)),
        "max_tokens": 1000,
        "stream": True,
        "temperature": 2.0,
    }
    with running.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
    until = time.monotonic() + 5
    while engine.running and time.monotonic() < until:
        time.sleep(0.02)
    assert engine.running == 0


def test_a_server_with_a_full_line_says_when_to_come_again(wire, home, tmp_path):
    made = Running(wire, home, tmp_path, most_waiting=1, most_running=1)
    try:
        body = {"model": FIRST, "messages": asked(latent_part(wire)), "max_tokens": 60, "temperature": 1.5}
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(made.http.post("/v1/chat/completions", json=body)))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        states = {answer.status_code for answer in answers}
        assert states == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert answer.headers["Retry-After"] == "1"
                assert "waiting" in refused(answer, 429)
    finally:
        made.stop()


def test_shutting_down_finishes_what_runs(wire, home, tmp_path):
    made = Running(wire, home, tmp_path)
    body = {"model": FIRST, "messages": asked(latent_part(wire)), "max_tokens": 300, "temperature": 1.5}
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{made.url}/v1/chat/completions", json=body, timeout=60))
    )
    thread.start()
    while not made.server.engine.running:
        time.sleep(0.005)
    made.stop()
    thread.join()
    assert answers[0].status_code == 200
