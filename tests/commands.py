"""Commands of `latentwire` one after another in this process, given as JSON: what a launch of tests/test_team.py starts."""

import json
import sys

from latentwire import cli

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["latentwire", *arguments]
    try:
        cli.main()
    except SystemExit as stopped:
        if stopped.code:
            raise
