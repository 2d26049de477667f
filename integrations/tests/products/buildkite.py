"""Buildkite: the plugin of integrations/buildkite in a double of the agent."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from products.process import LastLineJob, plain_status
from farm import ROOT, Farm, children, send
from snippets import snippet

TESTS = Path(__file__).resolve().parents[1]


def plugin_environment(options: dict[str, Any]) -> dict[str, str]:
    """The variables that Buildkite makes of a plugin's options."""
    env: dict[str, str] = {}
    for name, value in options.items():
        variable = f"BUILDKITE_PLUGIN_WHARFINGER_{name.upper().replace('-', '_')}"
        for end, one in [(f"_{i}", one) for i, one in enumerate(value)] if isinstance(value, list) else [("", value)]:
            env[variable + end] = str(one)
    return env


class AgentJob(LastLineJob):
    """A job in the double of the agent."""

    def kill_program(self) -> None:
        """Kills `wharfinger run`, and no other process of the agent."""
        for pid in children(self.process.pid):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"wharfinger\0run\0"):
                send(pid, signal.SIGKILL)


class Buildkite:
    """The plugin, as the page says."""

    name = "Buildkite"

    def start(self, farm: Farm) -> AgentJob:
        """Starts the first step of the page's pipeline."""
        put = {"make test": farm.command(), "https://wharfinger.example.org:7411": farm.server}
        step = yaml.safe_load(snippet("buildkite.md", "pipeline", put))["steps"][0]
        [(_name, options)] = step["plugins"][0].items()
        env = farm.env(
            BUILDKITE="true", BUILDKITE_JOB_ID="0193a1f2-0000-4000-8000-000000000001", BUILDKITE_BUILD_URL="https://buildkite.com/acme/web/builds/7",
            BUILDKITE_PIPELINE_SLUG="web", BUILDKITE_LABEL=step["label"], BUILDKITE_STEP_KEY=step.get("key", ""), BUILDKITE_COMMIT=farm.git("rev-parse", "HEAD"),
            BUILDKITE_BRANCH="main", BUILDKITE_COMMAND=step["command"], BUILDKITE_BUILD_NUMBER="7", BUILDKITE_RETRY_COUNT="0",
            **plugin_environment(options),
        )  # fmt: skip
        command = [sys.executable, str(TESTS / "doubles/buildkite_agent.py"), str(ROOT / "integrations/buildkite")]
        return AgentJob(command, env, farm.folder / "agent.log", farm.folder, signal.SIGTERM, plain_status)
