"""Clients in a closed loop: each asks, reads the stream to its end, and asks again; who is refused waits as long as it is told. One JSON line
for each request.

    PROMPTS=prompts.jsonl OUT=asked.jsonl REQUESTS=200 MODEL=smollm2-135m locust -f locustfile.py --headless -u 32 -r 32 --host URL

A line of PROMPTS holds `content`, the parts of a user's message; where it holds `text` too, this is encoded first and its latent takes
the place of the first part: a cold request. Runs in an environment of its own (requirements.txt) and imports nothing of LatentWire.
"""

import itertools
import json
import os
import time
from pathlib import Path

from locust import HttpUser, constant, task
from locust.exception import StopUser

PROMPTS = [json.loads(line) for line in Path(os.environ["PROMPTS"]).read_text().splitlines()]
REQUESTS = int(os.environ["REQUESTS"])  # to be answered; those that are refused do not count
SECONDS = float(os.environ.get("SECONDS", "inf"))
BEGUN = time.perf_counter()
NUMBERS, ENDED, STOPPED = itertools.count(), [], []
OUT = Path(os.environ["OUT"]).open("w", buffering=1)  # noqa: SIM115  (open as long as the process)


class Asker(HttpUser):
    """One client."""

    wait_time = constant(0)

    @task
    def ask(self):
        """Ask the next question."""
        if len(ENDED) >= REQUESTS or time.perf_counter() - BEGUN > SECONDS:
            raise StopUser
        number = next(NUMBERS)
        place = number % len(PROMPTS)
        prompt, begin = PROMPTS[place], time.perf_counter()
        record = {
            "number": number,
            "prompt": place,
            "status": 0,
            "first": None,
            "text": "",
            "tokens": 0,
            "retry_after": None,
        }
        content = prompt["content"]
        if "text" in prompt:
            asked = {"text": prompt["text"], "include_data": False, "name": f"cold {number}"}  # which the store lacks
            with self.client.post("/v1/latents", json=asked, name="encode", catch_response=True) as made:
                if made.status_code != 200:
                    self.note(record, made, begin)
                    return
                content = [{"type": "latent", "id": made.json()["id"]}, *content[1:]]
        body = {"model": os.environ["MODEL"], "max_tokens": int(os.environ.get("MAX_TOKENS", "16")), "stream": True}
        body |= {"messages": [{"role": "user", "content": content}], "stream_options": {"include_usage": True}}
        with self.client.post(
            "/v1/chat/completions", json=body, name="chat", stream=True, catch_response=True
        ) as answer:
            if answer.status_code == 200:
                self.read(record, answer, begin)
            self.note(record, answer, begin)

    def on_stop(self):
        """End with the last client."""
        STOPPED.append(self)
        if len(STOPPED) == self.environment.runner.target_user_count:
            self.environment.runner.quit()

    def read(self, record, answer, begin):
        """Read the stream."""
        for line in answer.iter_lines():
            if not line.startswith(b"data: ") or line == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            if event["choices"] and record["first"] is None:
                record["first"] = time.perf_counter() - begin
            record["text"] += "".join(choice["delta"].get("content", "") for choice in event["choices"])
            record["tokens"] = (event.get("usage") or {}).get("completion_tokens", record["tokens"])

    def note(self, record, answer, begin):
        """Write the request down; a refusal that the server announces is no failure of the tool."""
        record["status"], record["seconds"] = answer.status_code, time.perf_counter() - begin
        record["begun"], record["retry_after"] = begin - BEGUN, answer.headers.get("Retry-After")
        OUT.write(json.dumps(record) + "\n")
        answer.success() if answer.status_code in (200, 429) else answer.failure(str(answer.status_code))
        if answer.status_code == 429:
            time.sleep(float(record["retry_after"]))
        else:
            ENDED.append(record)
