"""The tables of docs/ci-cases.md. The tests compare what they see with them; `python table.py FOLDER` writes them anew.

FOLDER holds what the tests wrote there: `WHARFINGER_ROWS=FOLDER python -m pytest`, one JSON file for each row.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cases import CASES, Seen
from farm import ROOT

PAGE = ROOT / "docs/ci-cases.md"
HEAD = "| case | final status | attempts | leases | finding | left | restart |\n|---|---|---|---|---|---|---|\n"


def _lines(product: str, page: str) -> list[str]:
    _, found, rest = page.partition(f"<!-- table: {product} -->\n")
    return rest.partition("<!-- end -->")[0].splitlines() if found else []


def expected(product: str, title: str) -> tuple[str, ...] | None:
    """The cells of a row that are the same in each run; None if the page has no such row."""
    for line in _lines(product, PAGE.read_text()):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == title:
            return tuple(cells[1:-1])
    return None


def _row(title: str, seen: Seen) -> str:
    restart = "-" if seen.restart is None else f"{seen.restart:.1f} s"
    return "| " + " | ".join((title, *seen.row(), restart)) + " |\n"


def write(rows: Path) -> None:
    """Writes the rows that the folder has. The other rows stay."""
    page = PAGE.read_text()
    documents = [json.loads(path.read_text()) for path in sorted(rows.glob("*.json"))]
    for product in sorted({document["product"] for document in documents}):
        seen = {document["case"]: Seen(**document["seen"]) for document in documents if document["product"] == product}
        start, end = f"<!-- table: {product} -->\n", "<!-- end -->"
        before, found, rest = page.partition(start)
        if not found:
            raise KeyError(f"{PAGE} has no table of {product}: write a line {start.strip()} and a line {end}")
        old = {line.split(" | ")[0].strip("| "): f"{line}\n" for line in _lines(product, page) if line.startswith("| ")}
        body = "".join(_row(case.title, seen[name]) if name in seen else old.get(case.title, "") for name, case in CASES.items())
        page = before + start + "\n" + HEAD + body + "\n" + end + rest.partition(end)[2]
    PAGE.write_text(page)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
