"""`python -m latentwire` once for each list of arguments in the JSON given, in this process: what tests/test_team.py launches."""

import json
import runpy
import sys

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["latentwire", *arguments]
    try:
        runpy.run_module("latentwire", run_name="__main__")
    except SystemExit as stopped:
        if stopped.code:
            raise
