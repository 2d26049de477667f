"""Makes the stubs of the API, and takes the script of the fence from the sources of the broker."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Optional

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = ["types", "lease", "admin", "trust"]


class Stubs(BuildHookInterface[Any]):
    """Runs before a wheel is made, from the repository or from an sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        protos = self._first(root / "proto", root / ".." / ".." / "proto")
        guard = self._first(root / "guard.sh", root / ".." / ".." / "adapters" / "host" / "src" / "sh" / "guard.sh")
        self._made = Path(tempfile.mkdtemp(prefix="wharfinger-stubs."))
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
        command += [f"--python_out={self._made}", f"--pyi_out={self._made}"]
        subprocess.run([*command, *(f"wharfinger/v1/{name}.proto" for name in PROTOS)], check=True)
        included: dict[str, str] = build_data["force_include"]
        for made in sorted((self._made / "wharfinger" / "v1").iterdir()):
            included[str(made)] = f"wharfinger/v1/{made.name}"
        included[str(guard.resolve())] = "wharfinger/sh/guard.sh"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)

    _made: Optional[Path] = None

    @staticmethod
    def _first(*places: Path) -> Path:
        for place in places:
            if place.exists():
                return place
        raise FileNotFoundError(f"none of these exists: {', '.join(map(str, places))}")
