#!/usr/bin/env python3
"""Checks the documentation: each page is in the book once, and each link within the repository leads to a file and a heading.

Usage: check-docs.py [ROOT]. Prints each mistake with its place, and ends with 1 if there is one.
       check-docs.py --fix. Adds pages that are not in the book to docs/SUMMARY.md: decisions in their order, others at the end of the reference.
       check-docs.py --preprocess … is for mdBook: links out of docs/ lead to the repository in the book (book.toml).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)<>\s]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:(?: {4}|\t).*(?:\n|\Z))+")


def blank(match: re.Match[str]) -> str:
    """As many lines, without their words."""
    return "\n" * match[0].count("\n")


def prose(text: str) -> str:
    """The text without its code."""
    return CODE.sub("", INDENTED.sub(blank, FENCE.sub(blank, text)))


@lru_cache(maxsize=None)
def anchors(page: Path) -> frozenset[str]:
    """The names of the headings of a page, as GitHub and mdBook make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", FENCE.sub(blank, page.read_text()), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
        if found[name]:
            found[f"{name}-{found[name]}"] = 0
    return frozenset(found)


def check(root: Path) -> list[str]:
    """Returns the mistakes."""
    mistakes: list[str] = []
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"], check=True, capture_output=True)
    pages = sorted({root / name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()})
    summary = root / "docs" / "SUMMARY.md"
    in_book: list[Path] = []
    for page in pages:
        for number, line in enumerate(prose(page.read_text()).split("\n"), 1):
            for target in LINK.findall(line):
                if re.match(r"[a-z][a-z0-9+.-]*:", target):
                    continue
                path, _, heading = target.partition("#")
                led = (page.parent / path).resolve() if path else page
                place = f"{page.relative_to(root)}:{number}"
                if not led.exists():
                    mistakes.append(f"{place}: {target} leads to no file")
                elif heading and led.suffix == ".md" and heading not in anchors(led):
                    mistakes.append(f"{place}: {target} leads to no heading of {led.name}")
                if page == summary and led.exists():
                    in_book.append(led)
    for page in pages:
        if page.is_relative_to(root / "docs") and page != summary and page not in in_book:
            mistakes.append(f"docs/SUMMARY.md: {page.relative_to(root)} is not in the book")
    for page in sorted({page for page in in_book if in_book.count(page) > 1}):
        mistakes.append(f"docs/SUMMARY.md: {page.relative_to(root)} is in the book twice")
    return mistakes


def fix(root: Path) -> None:
    """Adds the pages that are not in the book to its summary."""
    summary = root / "docs" / "SUMMARY.md"
    for mistake in check(root):
        found = re.fullmatch(r"docs/SUMMARY\.md: docs/(\S+) is not in the book", mistake)
        if found is None:
            continue
        title = (root / "docs" / found[1]).read_text().split("\n", 1)[0].lstrip("# ").strip()
        is_decision = found[1].startswith("adr/")
        line = f"- [{'Decision ' if is_decision else ''}{title}]({found[1]})"
        before, heading, section = summary.read_text().partition("# Decisions\n\n" if is_decision else "# Reference\n\n")
        lines, blank_line, rest = section.partition("\n\n")
        listed = [*lines.rstrip("\n").split("\n"), line]
        if is_decision:
            listed.sort(key=lambda each: each.rpartition("(")[2])
        summary.write_text(before + heading + "\n".join(listed) + (blank_line + rest if blank_line else "\n"))


def preprocess() -> None:
    """Reads a book from standard input, as mdBook hands it to a preprocessor, and writes it to standard output."""
    context, book = json.load(sys.stdin)
    repository = context["config"]["output"]["html"]["git-repository-url"]

    def outside(chapter: str) -> Callable[[re.Match[str]], str]:
        def link(match: re.Match[str]) -> str:
            target = match[1]
            path, _, heading = target.partition("#")
            led = os.path.normpath(os.path.join("docs", os.path.dirname(chapter), path))
            if re.match(r"[a-z][a-z0-9+.-]*:", target) or not path or led.startswith("docs/"):
                return match[0]
            return match[0].replace(target, f"{repository}/blob/main/{led}{'#' + heading if heading else ''}")

        return link

    def walk(items: list[object]) -> None:
        for item in items:
            chapter = item.get("Chapter") if isinstance(item, dict) else None
            if chapter is not None:
                chapter["content"] = LINK.sub(outside(chapter["path"] or ""), chapter["content"])
                walk(chapter["sub_items"])

    walk(book.get("items") or book.get("sections") or [])
    json.dump(book, sys.stdout)


def main() -> int:
    """Prints the mistakes."""
    if sys.argv[1:2] == ["--preprocess"]:
        # mdBook asks first whether a renderer is supported: `supports html`.
        if sys.argv[2:3] != ["supports"]:
            preprocess()
        return 0
    if sys.argv[1:2] == ["--fix"]:
        fix(Path(__file__).resolve().parents[1])
        return 0
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]).resolve()
    mistakes = check(root)
    for mistake in mistakes:
        print(mistake)
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
