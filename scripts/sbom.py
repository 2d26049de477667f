#!/usr/bin/env python3
"""Prints the bill of materials of the program, as CycloneDX 1.6: each crate that is compiled into it, or that builds it.

Usage: sbom.py [FEATURES]. FEATURES: those of the build, with commas; the default ones without. Reads Cargo.lock, and asks `cargo metadata`, offline where
all crates are there. The same sources give the same document: it has no time and no random number.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "wharfinger"


def metadata(features: str | None) -> dict[str, Any]:
    """What cargo says of the packages and of the edges between them."""
    target = next(line for line in subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout.splitlines() if line.startswith("host: "))
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target.removeprefix("host: ")]
    command += [] if features is None else ["--no-default-features", "--features", features]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    return found


def reached(graph: dict[str, list[str]], root: str) -> list[str]:
    """The nodes that lie below one, sorted, without itself."""
    seen, open_ = {root}, [root]
    while open_:
        fresh = [below for below in graph[open_.pop()] if below not in seen]
        seen.update(fresh)
        open_ += fresh
    return sorted(seen - {root})


def document(features: str | None) -> dict[str, Any]:
    """The bill."""
    found = metadata(features)
    packages = {package["id"]: package for package in found["packages"]}
    graph = {
        node["id"]: sorted(dep["pkg"] for dep in node["deps"] if any(kind["kind"] in (None, "build") for kind in dep["dep_kinds"]))
        for node in found["resolve"]["nodes"]
    }
    [root] = [id for id, package in packages.items() if package["name"] == PROGRAM]
    locked = {(each["name"], each["version"]): each.get("checksum") for each in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}

    def purl(id: str) -> str:
        return f"pkg:cargo/{packages[id]['name']}@{packages[id]['version']}"

    def component(id: str, kind: str) -> dict[str, Any]:
        package = packages[id]
        made: dict[str, Any] = {"type": kind, "bom-ref": purl(id), "name": package["name"], "version": package["version"], "purl": purl(id)}
        if package["license"]:
            made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        checksum = locked.get((package["name"], package["version"]))
        if checksum:
            made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["repository"]:
            made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return made

    below = sorted(reached(graph, root), key=purl)
    body: dict[str, Any] = {
        "metadata": {"component": component(root, "application")},
        "components": [component(id, "library") for id in below],
        "dependencies": [{"ref": purl(id), "dependsOn": sorted({purl(dep) for dep in graph[id]})} for id in [root, *below]],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


if __name__ == "__main__":
    json.dump(document(sys.argv[1] if len(sys.argv) > 1 else None), sys.stdout, indent=1)
    print()
