"""Starts `latentwire` commands as processes of their own, to be killed; run by test_resume.py.

Imports once and forks a child for each command, so that a kill costs no start-up. Reads one JSON request a line:
`{"start": [arguments], "words": file, "threads": 1}` answers with the child's process id, `{"wait": pid}` with its exit code, which
is minus the signal's number where a signal ended it.
"""

import json
import os
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch

torch.set_num_threads(1)  # a pool of threads would not survive a fork

from latentwire import cli  # noqa: E402


def start(arguments, words, threads):
    """Forks a child that runs the command line; returns its process id."""
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(threads)
    sys.argv = ["latentwire", *arguments]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    code = 99
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def main():
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = start(request["start"], request["words"], request["threads"])
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        print(answer, flush=True)


main()
