"""Snippets of the pages below docs/adopt, which the tests run as they stand there.

A snippet is the fenced block after a line `<!-- snippet: NAME -->`.
"""

from __future__ import annotations

import re

from farm import ROOT


def snippet(page: str, name: str, put: dict[str, str]) -> str:
    """The snippet of docs/adopt/PAGE with each text of `put` replaced by another. Each must be there exactly once or more."""
    text = (ROOT / "docs/adopt" / page).read_text()
    found = re.search(rf"^<!-- snippet: {re.escape(name)} -->\n+```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(f"docs/adopt/{page} has no snippet {name}")
    block = found[1]
    for old, new in put.items():
        if old not in block:
            raise KeyError(f"docs/adopt/{page}: snippet {name} does not contain {old!r}")
        block = block.replace(old, new)
    return block
