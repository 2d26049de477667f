"""The check of the documentation finds what it is for, and the book's links lead to the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from farm import ROOT

CHECK = ROOT / "scripts" / "check-docs.py"


def run(*argv: object, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the check."""
    return subprocess.run([sys.executable, CHECK, *map(str, argv)], input=text, capture_output=True, text=True, timeout=60)


def test_each_page_is_in_the_book_and_each_link_leads_somewhere() -> None:
    done = run()
    assert done.returncode == 0, done.stdout


def test_mistakes_are_found_with_their_places(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "SUMMARY.md").write_text("# Reference\n\n- [A](a.md)\n- [A again](a.md)\n- [None](none.md)\n\n# Decisions\n\n- [Decision 2. Two](adr/0002-two.md)\n")
    (docs / "a.md").write_text("# A\n\n[b](b.md) [x](b.md#no) [y](b.md#b-c) [z](#a) [w](https://example.org/x.md)\n`[code](c.md)`\n\n    [code](d.md)\n\n```\n[code](e.md)\n```\n[f](f.md)\n")
    (docs / "b.md").write_text("# B, c!\n")
    (docs / "adr").mkdir()
    (docs / "adr" / "0001-one.md").write_text("# 1. One\n")
    (docs / "adr" / "0002-two.md").write_text("# 2. Two\n")
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "docs/SUMMARY.md:5: none.md leads to no file",
        "docs/a.md:3: b.md#no leads to no heading of b.md",
        "docs/a.md:11: f.md leads to no file",
        "docs/SUMMARY.md: docs/adr/0001-one.md is not in the book",
        "docs/SUMMARY.md: docs/b.md is not in the book",
        "docs/SUMMARY.md: docs/a.md is in the book twice",
    ]
    (tmp_path / "scripts").mkdir()
    shutil.copy(CHECK, tmp_path / "scripts")
    subprocess.run([sys.executable, tmp_path / "scripts" / CHECK.name, "--fix"], check=True)
    assert (docs / "SUMMARY.md").read_text() == (
        "# Reference\n\n- [A](a.md)\n- [A again](a.md)\n- [None](none.md)\n- [B, c!](b.md)\n\n"
        "# Decisions\n\n- [Decision 1. One](adr/0001-one.md)\n- [Decision 2. Two](adr/0002-two.md)\n"
    )


def test_links_out_of_the_book_lead_to_the_repository() -> None:
    chapter = {"path": "adopt/a.md", "content": "[r](../../README.md#x) [b](../b.md) [w](https://w.example.org)", "sub_items": []}
    context = {"config": {"output": {"html": {"git-repository-url": "https://example.org/r"}}}}
    done = run("--preprocess", text=json.dumps([context, {"items": [{"Chapter": chapter}, {"PartTitle": "x"}, "Separator"]}]))
    assert done.returncode == 0, done.stderr
    [found, *_] = json.loads(done.stdout)["items"]
    assert found["Chapter"]["content"] == "[r](https://example.org/r/blob/main/README.md#x) [b](../b.md) [w](https://w.example.org)"
    assert run("--preprocess", "supports", "html").returncode == 0
