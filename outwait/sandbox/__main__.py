"""`python -m outwait.sandbox`: a sandbox whose first line of output is its base URL."""

import argparse
import sys

from outwait.sandbox.behaviour import BadOrder
from outwait.sandbox.options import read_options
from outwait.sandbox.server import serve


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m outwait.sandbox", description="Three AI providers on one port.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--options", default="{}", metavar="JSON", help="SandboxOptions; see docs/sandbox.md")
    given = parser.parse_args()
    try:
        options = read_options(given.options)
    except BadOrder as error:
        parser.error(f"--options: {error}")
    serve(options, given.host, given.port, _print_url)


def _print_url(base_url: str) -> None:
    sys.stdout.write(base_url + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
