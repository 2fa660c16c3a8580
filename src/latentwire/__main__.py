"""`latentwire` and `python -m latentwire`: the command line, or what a plain install lacks for it."""

import sys
from importlib.util import find_spec

NEEDED = ("torch", "transformers", "typer")


def main() -> None:
    """Run the command line; exit code 2 where its packages are not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"error: expected {', '.join(missing)} to be installed for the command line, found none; run: pip install"
            " 'latentwire[models]'\n"
        )
        sys.exit(2)
    from latentwire.cli import main as run

    run()


if __name__ == "__main__":
    main()
