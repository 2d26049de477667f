"""The jobs of all cases are callers with the role `agent`, and need no other."""

from __future__ import annotations

import subprocess

from farm import Farm


def test_jobs_are_agents_and_no_operators(farm: Farm) -> None:
    """Their token leases; it may not look at the farm, and without it no call is answered."""

    def call(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(farm.program), *args], env=farm.env(WHARFINGER_SERVER=farm.server, **more), capture_output=True, text=True, timeout=60, check=False
        )

    assert call("ls").returncode == 0
    # EX_NOPERM.
    assert call("drain", "hosts/a", "--reason", "test").returncode == 77
    assert call("ls", WHARFINGER_AUTH_TOKEN_FILE="").returncode != 0
