"""A newcomer's way from nothing: the server of docs/adopt/server.md, then a job of a product's page, whose host is killed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from products import PRODUCTS
from farm import Farm, until
from snippets import snippet


def shell(farm: Farm, folder: Path, text: str) -> str:
    """Runs a snippet in a shell that ends at the first failure."""
    env = farm.env(WHARFINGER_SERVER=farm.server)
    done = subprocess.run(["sh", "-e", "-c", text], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def walk_to_a_server(farm: Farm) -> None:
    """Walks through docs/adopt/server.md, up to a broker that runs with its configuration."""
    folder = farm.folder / "walk"
    folder.mkdir()
    a, b = farm.hosts.values()
    # ssh-keyscan takes one port for all.
    scan = {"ssh-keyscan -t ed25519 b1.example.org b2.example.org": f"(ssh-keyscan -t ed25519 -p {a.port} {a.address}; ssh-keyscan -t ed25519 -p {b.port} {b.address})"}
    shell(farm, folder, snippet("server.md", "keys", scan))
    for host in (a, b):
        with (host.folder / "authorized_keys").open("a") as keys:
            keys.write((folder / "broker.pub").read_text() + (folder / "holder.pub").read_text())
    scanned = [line.split(" ", 1) for line in (folder / "hosts.txt").read_text().splitlines() if not line.startswith("#")]
    keys_of = {name.strip("[]").split("]")[0]: key for name, key in scanned}
    put = {"127.0.0.1:7411": farm.server, '"build"': '"root"', "/var/tmp/wharfinger": str(farm.work), "https://git.example.org/web.git": f"{farm.folder}/origin"}
    for name, host in (("1", a), ("2", b)):
        put[f"ssh-ed25519 AAAA...{name}"] = keys_of[host.address]
        put[f'address = "b{name}.example.org"'] = f'address = "{host.address}"\nport = {host.port}'
    farm.config = folder / "wharfinger.toml"
    farm.config.write_text(snippet("server.md", "server", put))
    shell(farm, folder, snippet("server.md", "check", {}))
    assert snippet("server.md", "serve", {}) == "wharfinger serve --config wharfinger.toml\n"
    farm.restart_broker()


def test_the_first_commands_run(farm: Farm) -> None:
    """The page's own proof that all is well."""
    walk_to_a_server(farm)
    printed = shell(farm, farm.folder, snippet("server.md", "first", {"127.0.0.1:7411": farm.server}))
    assert f"commit {farm.git('rev-parse', 'HEAD')}" in printed


@pytest.mark.parametrize("product", ["github", "gitlab-shell"])
def test_a_newcomer_kills_a_host_and_watches(farm: Farm, product: str) -> None:
    """The page of the server, then that of the product: the job begins again by itself, and passes."""
    walk_to_a_server(farm)
    farm.plan("wait")
    job = PRODUCTS[product].start(farm)
    first = farm.first_attempt()
    farm.host_of(first).kill()
    assert job.wait() == "success", job.log()
    attempts = until("the second attempt", lambda: [one for one in farm.attempts() if one["lease"] != first["lease"]])
    assert attempts[0]["address"] != first["address"]
    assert farm.cli("why", first["lease"]).returncode == 0
