"""The pages of docs/adopt: what they promise of themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from farm import ROOT

PAGES = sorted((ROOT / "docs/adopt").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_page_lets_its_reader_kill_a_host(page: Path) -> None:
    """Each has the sections of a newcomer. That of a product begins with a server, and names its table."""
    text = page.read_text()
    assert "## Kill the host and watch" in text
    if page.name != "server.md":
        assert "## Ten minutes" in text
        assert "(server.md)" in text
        assert "(../ci-cases.md)" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_snippet_is_run(page: Path) -> None:
    """A test names each snippet of a page, and each fenced block is a snippet."""
    text = page.read_text()
    names = re.findall(r"^<!-- snippet: (.*) -->$", text, re.MULTILINE)
    assert names
    sources = "".join(path.read_text() for path in (ROOT / "integrations/tests").rglob("*.py"))
    for name in names:
        assert f'"{name}"' in sources, f"no test runs the snippet {name} of {page.name}"
    assert len(re.findall(r"^```\w+$", text, re.MULTILINE)) == len(names)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/ci-cases.md", *(ROOT / "integrations").rglob("README.md")], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the repository names one that exists."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
