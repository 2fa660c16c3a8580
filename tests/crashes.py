"""Kills training processes at random moments and resumes them; run by test_resume.py in a process of its own.

    python crashes.py READER_FOLDER OUT_FOLDER PRECISION KILLS SEED

Imports once and forks a child for each attempt, so that a kill costs no start-up. Prints one JSON line.
"""

import json
import os
import random
import signal
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch

torch.set_num_threads(1)

from latentwire import cli  # noqa: E402

RECIPE = """
name: run
data: {{train: [{{name: facts}}], eval: {{name: facts}}, limit: 24, eval_limit: 4}}
reader: {{name: {reader}, shots: 0, dtype: float32}}
method: {{name: per_token, compression: 4}}
objective: {{weights: {{reconstruct: 0.5, on_policy_kl: 0.5}}}}
train: {{steps: 14, batch_tokens: 256, batch_examples: 4, micro_examples: 2, rollout_every: 3, precision: {precision},
  checkpoint_seconds: 0.0001}}
"""


def start(arguments):
    """Forks a child that runs the command line; returns its process id."""
    child = os.fork()
    if child:
        return child
    sys.argv = ["latentwire", *arguments]
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    try:
        cli.main()
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 0)
    os._exit(0)


def main():
    reader, out, precision, kills, seed = sys.argv[1:]
    recipe = os.path.join(out, "recipe.yaml")
    with open(recipe, "w") as file:
        file.write(RECIPE.format(reader=reader, precision=precision))
    calm = os.waitpid(start(["train", recipe, "--out", os.path.join(out, "calm")]), 0)[1]
    draw, killed, during_write = random.Random(int(seed)), 0, 0
    folder = os.path.join(out, "stormy", "run")
    while True:
        child = start(["train", recipe, "--resume", "--out", os.path.join(out, "stormy")])
        if killed < int(kills):
            time.sleep(draw.uniform(0.05, 1.6))
            partial = os.path.join(folder, "checkpoint.pt.partial")
            if killed % 3 == 0:
                until = time.monotonic() + 5
                while not os.path.exists(partial) and time.monotonic() < until:
                    pass
            os.kill(child, signal.SIGKILL)
            killed += 1
            during_write += os.path.exists(partial)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            print(json.dumps({"calm": calm, "end": status, "killed": killed, "during_write": during_write}))
            return


main()
