"""`latentwire serve` as a process: it answers, finishes what runs when it is told to stop, and refuses options that cannot work."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import latentwire as lw
from latentwire.errors import ServerError
from test_cli import call
from test_wire_folder import QUESTION, TEXT


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def started(trained, home, tmp_path):
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "latentwire",
        "serve",
        "--wire",
        str(trained),
        "--reader",
        str(home / "tiny-llama"),
    ]
    command += ["--reader", str(home / "tiny-gemma3"), "--store", str(tmp_path / "latents.db"), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    client = lw.Client(f"http://127.0.0.1:{port}", attempts=8)
    yield process, client
    client.close()
    process.kill()
    process.communicate()


def until_up(process, client):
    for _ in range(600):
        assert process.poll() is None, process.stderr.read()
        try:
            return client.models()
        except ServerError:
            time.sleep(0.1)
    raise AssertionError("expected a server within a minute")


def test_a_server_answers_and_finishes_what_runs_when_it_is_told_to_stop(started, trained, home):
    process, client = started
    assert [model["id"] for model in until_up(process, client)] == ["tiny-llama", "tiny-gemma3"]
    latent = client.encode(TEXT)
    wire = lw.Wire.load(trained)
    reader = wire.open_reader(str(home / "tiny-gemma3"))
    wanted = reader.answer(wire.prefix(wire.encode([TEXT]), reader), QUESTION, 16).text
    assert client.answer(QUESTION, [latent], "tiny-gemma3", 16).text == wanted
    pieces, begun = [], threading.Event()

    def listen():
        for piece in client.stream(QUESTION, [latent], "tiny-llama", 200):
            pieces.append(piece)
            begun.set()

    whole = client.answer(QUESTION, [latent], "tiny-llama", 200).text
    listener = threading.Thread(target=listen)
    listener.start()
    assert begun.wait(60)
    process.send_signal(signal.SIGINT)
    listener.join(60)
    assert "".join(pieces) == whole
    assert process.wait(60) == 0
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "vllm"], "--engine vllm and --vllm-url together"),
        (["--vllm-url", "http://127.0.0.1:9"], "--engine vllm and --vllm-url together"),
        (["--engine", "vllm", "--vllm-url", "http://127.0.0.1:9"], "expected a vLLM server at http://127.0.0.1:9"),
        (["--api-keys", "missing.txt"], "expected API keys in missing.txt"),
        (["--reader", "{home}/tiny-llama"], "got 'tiny-llama' twice"),
        (["--store", "{home}"], "expected a store that can be read and written"),
    ],
)
def test_options_that_cannot_work_are_refused(trained, home, capsys, options, words):
    given = [option.format(home=home) for option in options]
    code, _, said = call(capsys, "serve", "--wire", trained, "--reader", home / "tiny-llama", *given)
    assert code == 2
    assert words in said


def test_an_api_key_file_without_keys_is_refused(trained, home, tmp_path, capsys):
    (tmp_path / "keys.txt").write_text("\n \n")
    options = ["--reader", str(home / "tiny-llama"), "--api-keys", str(tmp_path / "keys.txt")]
    code, _, said = call(capsys, "serve", "--wire", trained, *options)
    assert code == 2
    assert "one in each line, got none" in said
