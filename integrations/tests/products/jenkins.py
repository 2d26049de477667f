"""Jenkins without a plugin: the step `sh` of a pipeline is `wharfinger run`, in a double of that step. Groovy is not run."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

from products.process import LastLineJob, plain_status
from farm import Farm
from snippets import snippet

TESTS = Path(__file__).resolve().parents[1]


class Jenkins:
    """The step, as the page says."""

    name = "Jenkins, step sh"

    def start(self, farm: Farm) -> LastLineJob:
        """Starts the script of the page with the variables of its `withEnv`."""
        text = snippet("jenkins.md", "pipeline", {"make test": farm.command(), "https://wharfinger.example.org:7411": farm.server})
        [script] = re.findall(r"^ *sh '(.*)'$", text, re.MULTILINE)
        [variables] = re.findall(r"withEnv\(\[(.*?)\]\)", text, re.DOTALL)
        env = dict(pair.split("=", 1) for pair in re.findall(r"'(\w+=[^']*)'", variables))
        assert {"WHARFINGER_SERVER", "WHARFINGER_CI"} <= env.keys()
        env |= {
            "JENKINS_URL": "https://jenkins.example.org/", "JOB_NAME": "web/main", "BUILD_TAG": "jenkins-web-main-7", "STAGE_NAME": "test",
            "BUILD_URL": "https://jenkins.example.org/job/web/job/main/7/", "GIT_COMMIT": farm.git("rev-parse", "HEAD"),
        }  # fmt: skip
        folder = farm.folder / "agent"
        folder.mkdir()
        (folder / "script").write_text(script)
        command = [sys.executable, str(TESTS / "doubles/jenkins_sh.py"), str(folder)]
        return LastLineJob(command, farm.env(**env), farm.folder / "job.log", farm.folder, signal.SIGTERM, plain_status)
