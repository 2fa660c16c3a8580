"""What the server does under load: results/serving/<part>.json.

    python runs/serving/measure.py PART --locust PATH --command "..." [--wire wires/facts] [--reader smollm2-135m]

load       32 clients at contexts of 200 and 500 tokens and 8 at 1,500, 200 answers each: from text, from stored latents, and cold, with
           the wire's encoder and with one that stops early
overload   64 clients, a server that holds 8 waiting requests, until 200 are answered: who is refused, who is answered, and whether rightly
soak       4 clients for 20 minutes: the server's memory
Clients are locust's, in a closed loop over loopback, on the same machine as the server: they take some of its time.
"""

import argparse
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from latentwire import Client
from latentwire.data import DATASETS
from latentwire.errors import ServerError
from latentwire.reader.load import load_reader
from latentwire.reader.precision import dtype_name
from latentwire.runs import provenance

ROOT = Path(__file__).parent.parent.parent
LOADS = ((200, 32), (500, 32), (1500, 8))  # tokens of the context, clients
WAYS = {"wires/facts": ("text", "stored latent", "cold"), "wires/light": ("cold",)}
REQUESTS = 200
CONTEXTS = 16  # distinct ones of each length
SOAK_SECONDS = 1200.0
GLANCE_SECONDS = 10.0


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    process: psutil.Process
    client: Client


@contextlib.contextmanager
def served(wire: str, reader: str, *options: str) -> Iterator[Served]:
    """A server of its own, with an empty store."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "latentwire", "serve", "--wire", wire, "--reader", reader, "--port", str(port)]
        process = subprocess.Popen([*command, "--store", f"{folder}/latents.db", *options], cwd=ROOT)
        try:
            with Client(f"http://127.0.0.1:{port}", attempts=1, timeout=600) as client:
                while True:
                    try:
                        client.models()
                        break
                    except ServerError:
                        if process.poll() is not None:
                            raise SystemExit(f"expected a server, got exit code {process.returncode}") from None
                        time.sleep(0.5)
                yield Served(f"http://127.0.0.1:{port}", psutil.Process(process.pid), client)
        finally:
            process.terminate()
            process.wait(60)


def contexts(tokens: int, reader: str) -> list[tuple[str, str]]:
    """Generated passages of about so many tokens of the reader, each with a question about one of its sentences."""
    prompter = load_reader(reader).prompter
    examples = iter(DATASETS["facts"](questions_per_passage=1).examples("heldout", 0, 64 * CONTEXTS))  # type: ignore[call-arg]
    found = []
    for _ in range(CONTEXTS):
        parts: list[str] = []
        while len(prompter.slot(" ".join(parts)).ids) < tokens:
            example = next(examples)
            parts.append(example.context)
        ids = prompter.slot(" ".join(parts)).ids
        text = prompter.shorten(ids, tokens)[0] if len(ids) > tokens else " ".join(parts)
        found.append((text, example.question))
    return found


def asked(
    server: Served, locust: str, prompts: list[dict[str, Any]], reader: str, clients: int, requests: int, **more: str
) -> list[dict[str, Any]]:
    """What locust's clients wrote down."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
        given = {"PROMPTS": f"{folder}/prompts.jsonl", "OUT": f"{folder}/asked.jsonl", "REQUESTS": str(requests)}
        command = [locust, "-f", str(Path(__file__).with_name("locustfile.py")), "--headless", "--only-summary"]
        command += ["-u", str(clients), "-r", str(clients), "--host", server.url]
        subprocess.run(command, env={**os.environ, **given, "MODEL": reader, **more}, check=False)
        return [json.loads(line) for line in (Path(folder) / "asked.jsonl").read_text().splitlines()]


def part_of(server: Served, text: str) -> dict[str, str]:
    """A stored latent as part of a message."""
    return server.client.encode(text, data=False).part()


def alone(server: Served, prompts: list[dict[str, Any]], reader: str) -> list[str]:
    """Each prompt's answer when nobody else asks."""
    texts = []
    for prompt in prompts:
        (*parts, question) = prompt["content"]
        pieces = [part["text"] if part["type"] == "text" else _Part(part) for part in parts]
        texts.append(server.client.answer(question["text"], pieces, reader, 16).text)  # type: ignore[arg-type]
    return texts


@dataclass(frozen=True)
class _Part:
    """A latent that is named already."""

    named: dict[str, str]

    def part(self) -> dict[str, str]:
        return self.named


def summary(records: list[dict[str, Any]], expected: list[str]) -> dict[str, Any]:
    """Counts, times and rates of requests."""
    done = [one for one in records if one["status"] == 200]
    first = np.array([one["first"] for one in done])
    span = max(one["begun"] + one["seconds"] for one in records) - min(one["begun"] for one in records)
    return {
        "requests": len(records),
        "completed": len(done),
        "refused_429": sum(one["status"] == 429 for one in records),
        "failed": sum(one["status"] not in (200, 429) for one in records),
        "same_answer_as_alone": float(np.mean([one["text"] == expected[one["prompt"]] for one in done])),
        "first_token_p50_seconds": float(np.percentile(first, 50)),
        "first_token_p95_seconds": float(np.percentile(first, 95)),
        "tokens_per_second": sum(one["tokens"] for one in done) / span,
        "answers_per_second": len(done) / span,
    }


def yes(it_is: bool) -> str:
    """In a word."""
    return "yes" if it_is else "no"


def prompts_of(server: Served, made: list[tuple[str, str]], way: str) -> list[dict[str, Any]]:
    """Prompts that bring the context as text, as a stored latent, or as a text to be encoded first."""
    prompts = []
    for text, question in made:
        part = {"type": "text", "text": text} if way == "text" else part_of(server, text)
        prompt: dict[str, Any] = {"content": [part, {"type": "text", "text": question}]}
        prompts.append({**prompt, "text": text} if way == "cold" else prompt)
    return prompts


def load(given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each length and way."""
    rows = []
    made = {tokens: contexts(tokens, given.reader) for tokens, _ in LOADS}
    for wire, ways in WAYS.items():
        with served(wire, given.reader, "--running", "32", "--waiting", "64") as server:
            for (tokens, clients), way in itertools.product(LOADS, ways):
                prompts = prompts_of(server, made[tokens], way)
                expected = alone(server, prompts, given.reader)
                records = asked(server, given.locust, prompts, given.reader, clients, given.requests)
                name = f"{tokens} tokens, {clients} clients, {way}, {wire}"
                rows.append({"comparison": name, **summary(records, expected)})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def overload(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Far more clients than the line holds."""
    with served(given.wire, given.reader, "--running", "4", "--waiting", "8") as server:
        prompts = prompts_of(server, contexts(200, given.reader), "stored latent")
        expected = alone(server, prompts, given.reader)
        records = asked(server, given.locust, prompts, given.reader, 64, given.requests)
        refused = [one for one in records if one["status"] == 429]
        row: dict[str, Any] = {"comparison": "64 clients, 4 running, 8 waiting", **summary(records, expected)}
        row["lost"] = max(one["number"] for one in records) + 1 - len(records)
        row["refusals_say_when_to_come_again"] = yes(all(one["retry_after"] for one in refused))
        row["answered_afterwards"] = yes(alone(server, prompts[:1], given.reader) == expected[:1])
        return [row]


def soak(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Memory over 20 minutes of requests, text, latents and encoding in turn."""
    with served(given.wire, given.reader) as server:
        made = contexts(200, given.reader)
        prompts = [prompt for way in ("text", "stored latent", "cold") for prompt in prompts_of(server, made, way)]
        expected = alone(server, prompts, given.reader)
        memory: list[float] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(GLANCE_SECONDS):
                memory.append(server.process.memory_info().rss / 2**20)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        records = asked(server, given.locust, prompts, given.reader, 4, 10**9, SECONDS=str(given.seconds))
        ended.set()
        watcher.join()
        thirds = np.array_split(np.array(memory), 3)
        return [
            {
                "comparison": f"4 clients, {given.seconds:.0f} seconds",
                **summary(records, expected),
                "memory_mib_by_minute": " ".join(f"{one:.0f}" for one in memory[:: int(60 / GLANCE_SECONDS)]),
                "memory_growth_mib_from_second_to_last_third": float(thirds[2].mean() - thirds[1].mean()),
            }
        ]


def keep(given: argparse.Namespace, meta: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """Write a part's result file."""
    run = {"command": given.command, "seed": 0, **provenance()}
    path = given.results / "serving" / f"{given.part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"run": run, "train": None, "meta": meta, "rows": rows}
    path.write_text(json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(path)


def main() -> None:
    """Read the arguments, measure, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("load", "overload", "soak"))
    parser.add_argument("--locust", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--wire", default="wires/facts", help="of overload and soak")
    parser.add_argument("--reader", default="smollm2-135m")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--seconds", type=float, default=SOAK_SECONDS)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    rows = {"load": load, "overload": overload, "soak": soak}[given.part](given)
    meta = {
        "what": f"the server under load ({given.part}), locust's clients in a closed loop on the same machine",
        "peer": "the same server answering from text",
        "reader": given.reader,
        "dtype": dtype_name(load_reader(given.reader).dtype),
        "contexts": f"{CONTEXTS} generated passages of each length; max_tokens 16",
    }
    keep(given, meta, rows)


if __name__ == "__main__":
    main()
