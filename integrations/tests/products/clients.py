"""The Python environment in which the clients of docs/python.md are installed, as scripts/needs.sh makes it."""

from __future__ import annotations

import os
from pathlib import Path

from farm import ROOT


def client_programs() -> Path:
    """Its folder of programs, with the wheel `wharfinger`: WHARFINGER_CLIENT_BIN, or that of `./test.sh`."""
    folder = Path(os.environ.get("WHARFINGER_CLIENT_BIN") or ROOT / "target/clients/main/bin")
    if not (folder / "python").exists():
        raise FileNotFoundError(f"{folder}/python is missing: ./test.sh ci makes the environment, or set WHARFINGER_CLIENT_BIN")
    return folder
