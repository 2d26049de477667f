"""EC2, SQS and the metadata service for tests: moto in this process, with the parts that moto lacks.

moto 5.2.5 knows neither client tokens nor capacity, quotas, lag, scheduled events or hosts that can be reached. Here
instances have addresses in 127.77.0.0/16 and one real sshd each, with the host key and the login that their user data names;
EC2's answers are idempotent by token; every call is logged. `POST /chaos/<what>` sets faults. The program ends with all its
sshds when its standard input ends.
"""
import base64
import collections
import ctypes
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
from moto.ec2.models import ec2_backends  # noqa: E402
from moto.ec2.models.instances import Instance, InstanceState, StateReason  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sqs.models import sqs_backends  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

ACCOUNT, REGION = "123456789012", "us-east-1"
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
LAUNCHES = ("RunInstances", "CreateFleet")
lock = threading.RLock()


def ec2():
    return ec2_backends[ACCOUNT][REGION]


class World:
    """The faults of the world. Each test has a process of its own."""

    def __init__(self):
        self.faults = []  # {action, code, status, count, mode, delay, drop}
        self.events = {}  # instance -> [event]
        self.impaired = set()
        self.answers = {}  # (action, token) -> (parameters, status, headers, body, instances)
        self.log = []
        self.empty = set()  # (type, subnet, spot); "*" matches all
        self.refused = {}  # (type, subnet, spot) -> code
        self.quota = {}  # spot: n, on_demand: n
        self.images = {"ami-good"}
        self.boot = 0.0
        self.lag = 0.0
        self.down = False
        self.sqs_down = False
        self.expired = None
        self.announced = collections.defaultdict(dict)  # instance -> IMDS path -> text
        self.identities = None  # the instance id of every IMDS
        self.dead = set()  # instances whose sshd stays down
        self.other_key = set()  # instances whose sshd shows another key
        self.no_ssh = False
        self.fips = False  # sshd does not start with an ed25519 host key
        self.metadata = True  # the first boot closes the metadata service
        self.own_keys = False  # each sshd shows a host key of its own
        self.fails = None  # {code, message}: why each new instance ends before it runs
        self.hold = None  # {left, mode, action}: the call that is held before or after its effect
        self.held = None  # its action
        self.let_go = threading.Event()
        self.launched = []  # all instances in the order of their launch


world = World()

# The answer of DescribeInstanceStatus.
_status = Instance.instance_status.fget


def _instance_status(self):
    if self.id in world.impaired:
        return {"Status": "impaired", "Details": [{"Name": "reachability", "Status": "failed"}]}
    return _status(self)


Instance.instance_status = property(_instance_status)
Instance.events = property(lambda self: world.events.get(self.id, []))
_init = Instance.__init__


def _boots(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    world.launched.append(self)
    if world.fails:
        self._state = InstanceState("pending", 0)
        reason = dict(world.fails)

        def ends():
            self._state.name, self._state.code = "terminated", CODES["terminated"]
            self.state_reason = StateReason(reason["message"], reason["code"])

        timer = threading.Timer(0.3, ends)
        timer.daemon = True
        timer.start()
    elif world.boot > 0:
        self._state = InstanceState("pending", 0)

        def runs():
            if self._state.name == "pending":
                self._state.name, self._state.code = "running", 16

        timer = threading.Timer(world.boot, runs)
        timer.daemon = True
        timer.start()


Instance.__init__ = _boots


def instance(ident):
    return next(i for i in world.launched if i.id == ident)


def is_spot(one):
    return getattr(one, "lifecycle", None) == "spot"


def alive(spot):
    return sum(1 for i in world.launched if is_spot(i) == spot and i._state.name in ("pending", "running"))


def hide(ids):
    """Remove instances from all lists until the lag is over."""
    backend = ec2()
    for reservation in list(backend.reservations.values()):
        for one in [i for i in reservation.instances if i.id in ids]:
            reservation.instances.remove(one)

            def shows(reservation=reservation, one=one):
                reservation.instances.append(one)

            timer = threading.Timer(world.lag, shows)
            timer.daemon = True
            timer.start()


class Sshds:
    """One sshd for each instance that runs."""

    def __init__(self, port):
        self.port = port
        self.folder = tempfile.mkdtemp(prefix="wharfinger-moto-")
        self.running = {}
        self.boots = {}  # instance -> the script of its first boot
        self.base = None
        self.over = False
        os.makedirs("/run/sshd", exist_ok=True)

    def keep(self):
        while True:
            with lock:
                if self.over:
                    return
                wanted = {i.id: i for i in list(world.launched) if i._state.name == "running" and i.id not in world.dead and not world.no_ssh}
                for ident in [i for i in self.running if i not in wanted]:
                    self.end(ident)
                    self.end_boot(ident)
                for ident, one in wanted.items():
                    if ident not in self.running:
                        self.start(one)
            time.sleep(0.05)

    def start(self, one):
        data = user_data(one)
        if not data:
            return
        folder = os.path.join(self.folder, one.id)
        os.makedirs(folder, exist_ok=True)
        key = os.path.join(folder, "host_key")
        private = data["ssh_keys"].get("ed25519_private")
        if private and world.fips:
            return
        if one.id in world.other_key or world.own_keys:
            if os.path.exists(key):
                os.remove(key)
            self.boots[one.id] = None
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        elif one.id not in self.boots:
            write(key, private or data["ssh_keys"]["ecdsa_private"], 0o600)
        lines = [line for user in data["users"] if isinstance(user, dict) for line in user["ssh_authorized_keys"]]
        write(os.path.join(folder, "authorized_keys"), "\n".join(lines) + "\n", 0o600)
        address = one.private_ip
        config = os.path.join(folder, "config")
        write(
            config,
            f"ListenAddress {address}:{self.port}\nHostKey {key}\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\nMaxSessions 30\nUseDNS no\n"
            f"SetEnv WHARFINGER_IMDS={self.base}/imds/{one.id} WHARFINGER_SEEN={folder}/seen WHARFINGER_ROOT={folder}\n",
            0o600,
        )
        log = open(os.path.join(folder, "log"), "ab")
        # The tests ignore root's start-up file. Each host has a boot id of its own.
        script = (
            "[ ! -e /root/.bashrc ] || mount --bind /dev/null /root/.bashrc\n"
            'mount --bind "$1" /proc/sys/kernel/random/boot_id\nshift\nexec /usr/sbin/sshd "$@"'
        )
        boot = os.path.join(folder, "boot_id")
        if not os.path.exists(boot):
            self.new_boot(one.id)
        process = subprocess.Popen(
            ["unshare", "-m", "/bin/sh", "-c", script, "sshd", boot, "-D", "-e", "-f", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        self.running[one.id] = process
        if one.id not in self.boots:
            self.boots[one.id] = self.boot(folder, data, key, process.pid, log)
        log.close()

    def boot(self, folder, data, key, sshd, log):
        """Run the script of the first boot, in a network of its own. Its sshd is that of this instance."""
        for name in ("run/wharfinger", "etc/ssh"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        kind = "ed25519" if "ed25519_private" in data["ssh_keys"] else "ecdsa"
        script, reload = os.path.join(folder, "first-contact"), os.path.join(folder, "reload")
        write(script, data["write_files"][0]["content"], 0o700)
        write(reload, f"#!/bin/sh\ncp {folder}/etc/ssh/ssh_host_{kind}_key {key} && kill -s HUP {sshd}\n", 0o700)
        metadata = "closed" if world.metadata else "open"
        return subprocess.Popen(
            ["unshare", "-n", "/bin/sh", script, kind, "root", metadata],
            env={**os.environ, "WHARFINGER_ROOT": folder, "WHARFINGER_RELOAD": reload},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

    def new_boot(self, ident):
        with open("/proc/sys/kernel/random/uuid", encoding="ascii") as source:
            write(os.path.join(self.folder, ident, "boot_id"), source.read(), 0o644)

    def tree(self, pid):
        found = [pid]
        for parent in found:
            try:
                with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as source:
                    found.extend(int(child) for child in source.read().split())
            except OSError:
                pass
        return found

    def signal(self, ident, number):
        process = self.running.get(ident)
        if process:
            for pid in self.tree(process.pid):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass

    def end(self, ident):
        process = self.running.pop(ident, None)
        if process:
            self.running[ident] = process
            self.signal(ident, signal.SIGSTOP)
            self.signal(ident, signal.SIGKILL)
            del self.running[ident]
            process.wait()

    def end_boot(self, ident):
        process = self.boots.get(ident)
        if process:
            process.kill()
            process.wait()

    def end_all(self):
        with lock:
            # The loop must not start them again.
            self.over = True
            for ident in list(self.running):
                self.end(ident)
            for ident in self.boots:
                self.end_boot(ident)
        shutil.rmtree(self.folder, ignore_errors=True)


def write(path, text, mode):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
        out.write(text)


def user_data(one):
    raw = one.user_data
    if not raw:
        return None
    text = raw if isinstance(raw, str) else str(raw)
    for _ in range(2):
        if text.startswith("#cloud-config\n"):
            return json.loads(text[len("#cloud-config\n") :])
        text = base64.b64decode(text).decode()
    return json.loads(text[len("#cloud-config\n") :]) if text.startswith("#cloud-config\n") else None


def xml_error(code, message="as the test wants it"):
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code>'
        f"<Message>{message}</Message></Error></Errors><RequestID>chaos</RequestID></Response>"
    ).encode()


# moto lacks the call.
HOOKED = (
    b'<CompleteLifecycleActionResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><CompleteLifecycleActionResult/>'
    b"<ResponseMetadata><RequestId>x</RequestId></ResponseMetadata></CompleteLifecycleActionResponse>"
)


def matches(kind, subnet, spot):
    return any(t in ("*", kind) and s in ("*", subnet) and p == spot for t, s, p in world.empty)


def short(kind, subnet, spot, image):
    """EC2's code for a place that has no instance to give."""
    if image not in world.images:
        return "InvalidAMIID.NotFound"
    name = "spot" if spot else "on_demand"
    if name in world.quota and alive(spot) >= world.quota[name]:
        return "MaxSpotInstanceCountExceeded" if spot else "VcpuLimitExceeded"
    if (kind, subnet, spot) in world.refused:
        return world.refused[kind, subnet, spot]
    return "InsufficientInstanceCapacity" if matches(kind, subnet, spot) else None


class Control:
    """In front of moto."""

    def __init__(self, inner, sshds):
        self.inner, self.sshds = inner, sshds

    def __call__(self, env, start):
        path = env.get("PATH_INFO", "")
        size = int(env.get("CONTENT_LENGTH") or 0)
        raw = env["wsgi.input"].read(size) if size else b""
        env["wsgi.input"] = io.BytesIO(raw)
        if path.startswith("/chaos/"):
            return self.chaos(path[7:], json.loads(raw or b"{}"), start)
        if path.startswith("/imds/"):
            return self.imds(path[6:], start)
        sqs = "HTTP_X_AMZ_TARGET" in env
        query = {} if sqs else {k: v[0] for k, v in urllib.parse.parse_qs(raw.decode("latin1")).items()}
        action = env["HTTP_X_AMZ_TARGET"].split(".")[-1] if sqs else query.get("Action", "?")
        entry = {"at": time.time(), "action": action, "token": query.get("ClientToken"), "instances": []}
        with lock:
            world.log.append(entry)
            fault = next((f for f in world.faults if f["action"] in (action, "*") and f["count"] > 0), None)
            if fault:
                fault["count"] -= 1
            gone = world.down or (sqs and world.sqs_down)
            expired = world.expired
            hold = None
            # Calls to the queue are permanent, so they count only if they are named.
            if world.hold and world.hold.get("action", "" if sqs else action) == action:
                world.hold["left"] -= 1
                if world.hold["left"] == 0:
                    hold, world.hold = world.hold["mode"], None
        if hold == "before":
            return self.keep(env, action)
        if gone:
            return self.cut(env)
        if fault and fault.get("delay"):
            time.sleep(fault["delay"])
        if expired:
            body = json.dumps({"__type": expired, "message": "expired"}).encode() if sqs else xml_error(expired)
            return self.answer(start, 403, body, "application/x-amz-json-1.0" if sqs else "text/xml")
        if fault and fault.get("mode", "before") == "before":
            if fault.get("drop"):
                return self.cut(env)
            if fault.get("code"):
                return self.answer(start, fault.get("status", 400), xml_error(fault["code"]))
        if action == "CompleteLifecycleAction":
            entry["instances"] = [query.get("InstanceId")]
            entry["hook"] = {k: query.get(k) for k in ("AutoScalingGroupName", "LifecycleHookName", "LifecycleActionToken", "LifecycleActionResult")}
            return self.answer(start, 200, HOOKED)
        if action in LAUNCHES:
            with lock:
                status, headers, body = self.launch(action, query, env, entry)
        else:
            status, headers, body = self.ask(env)
        if hold == "after" and action == "ReceiveMessage" and not json.loads(body).get("Messages"):
            # The call has received no message yet.
            world.hold = {"left": 1, "mode": hold, "action": action}
        elif hold == "after":
            return self.keep(env, action)
        if fault and fault.get("mode") == "after":
            if fault.get("drop"):
                return self.cut(env)
            return self.answer(start, fault.get("status", 500), xml_error(fault["code"]))
        start(status, headers)
        return [body]

    def ask(self, env):
        said = {}

        def begin(status, headers, exc=None):
            said["status"], said["headers"] = status, headers

        body = b"".join(self.inner(env, begin))
        return said["status"], said["headers"], body

    def answer(self, start, status, body, kind="text/xml"):
        start(f"{status} X", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def keep(self, env, action):
        """Hold the answer until the test lets go. The caller is dead by then."""
        world.held = action
        world.let_go.wait()
        return self.cut(env)

    def cut(self, env):
        try:
            env["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        return []

    def refuse(self, code, status=400):
        body = xml_error(code)
        return f"{status} X", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))], body

    def launch(self, action, query, env, entry):
        token = query.get("ClientToken")
        known = world.answers.get((action, token))
        if known:
            if known[0] != query:
                return self.refuse("IdempotentParameterMismatch")
            if known[4] and all(instance(i)._state.name in ("shutting-down", "terminated") for i in known[4]):
                return self.refuse("IdempotentInstanceTerminated")
            entry["instances"], entry["again"] = known[4], True
            return known[1:4]
        before = len(world.launched)
        errors = b""
        if action == "RunInstances":
            spot = query.get("InstanceMarketOptions.MarketType") == "spot"
            why = short(query.get("InstanceType"), query.get("SubnetId"), spot, query.get("ImageId"))
            if why:
                entry["code"] = why
                return self.refuse(why, 500 if why == "InsufficientInstanceCapacity" else 400)
        else:
            env, left, errors = self.fleet(query, env)
            if not left:
                entry["code"] = re.search(rb"<errorCode>(.*?)<", errors).group(1).decode()
                body = (
                    b'<?xml version="1.0" encoding="UTF-8"?><CreateFleetResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
                    b"<requestId>x</requestId><fleetId>fleet-none</fleetId><fleetInstanceSet/>" + errors + b"</CreateFleetResponse>"
                )
                return "200 OK", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))], body
        status, headers, body = self.ask(env)
        if action == "CreateFleet" and errors and b"</CreateFleetResponse>" in body:
            body = body.replace(b"</CreateFleetResponse>", errors + b"</CreateFleetResponse>")
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        made = world.launched[before:]
        entry["instances"] = [i.id for i in made]
        if status.startswith("200"):
            spot = query.get("TargetCapacitySpecification.DefaultTargetCapacityType") == "spot"
            for one in made:
                if spot:
                    one.lifecycle = "spot"
            world.answers[(action, token)] = (query, status, headers, body, entry["instances"])
            if world.lag:
                hide(set(entry["instances"]))
        return status, headers, body

    def fleet(self, query, env):
        """Return the request without the failed places, the number of places that are left, and the errors."""
        prefix = "LaunchTemplateConfigs.1.Overrides."
        spot = query.get("TargetCapacitySpecification.DefaultTargetCapacityType") == "spot"
        numbers = sorted({int(k[len(prefix) :].split(".")[0]) for k in query if k.startswith(prefix)})
        left, errors = [], []
        for number in numbers:
            get = lambda name, number=number: query.get(f"{prefix}{number}.{name}")  # noqa: E731
            why = short(get("InstanceType"), get("SubnetId"), spot, get("ImageId"))
            if why:
                errors.append(
                    "<item><launchTemplateAndOverrides><overrides>"
                    f"<instanceType>{get('InstanceType')}</instanceType><subnetId>{get('SubnetId')}</subnetId>"
                    "</overrides></launchTemplateAndOverrides><lifecycle>spot</lifecycle>"
                    f"<errorCode>{why}</errorCode><errorMessage>as the test wants it</errorMessage></item>"
                )
            else:
                left.append(number)
        kept = {k: v for k, v in query.items() if not k.startswith(prefix)}
        for at, number in enumerate(left, 1):
            for name in ("InstanceType", "SubnetId", "ImageId"):
                kept[f"{prefix}{at}.{name}"] = query[f"{prefix}{number}.{name}"]
        body = urllib.parse.urlencode(kept).encode()
        env = {**env, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return env, len(left), ("<errorSet>" + "".join(errors) + "</errorSet>").encode() if errors else b""

    def imds(self, path, start):
        ident, _, rest = path.partition("/latest/")
        if rest == "api/token":
            return self.answer(start, 200, b"token", "text/plain")
        rest = rest.removeprefix("meta-data/")
        if rest == "instance-id":
            return self.answer(start, 200, (world.identities or ident).encode(), "text/plain")
        text = world.announced[ident].get(rest)
        if text is None and rest == "events/maintenance/scheduled":
            text = "[]"
        if text is None:
            return self.answer(start, 404, b"not found", "text/plain")
        return self.answer(start, 200, text.encode(), "text/plain")

    def chaos(self, what, d, start):
        out = {}
        with lock:
            if what == "fault":
                world.faults.append({"count": 1, **d})
            elif what == "unfault":
                world.faults.clear()
            elif what == "set":  # boot, lag, down, sqs_down, expired, quota, no_ssh, fips, metadata, own_keys, fails
                for key, value in d.items():
                    setattr(world, key, value)
            elif what == "hold":
                world.held = None
                world.let_go.clear()
                world.hold = d
            elif what == "held":
                out = {"action": world.held}
            elif what == "unhold":
                world.hold = None
                world.held = None
                world.let_go.set()
            elif what == "images":
                world.images = set(d["images"])
            elif what == "empty":  # [[type, subnet, spot]…]
                world.empty = {tuple(one) for one in d["places"]}
            elif what == "refuse":  # [[type, subnet, spot, code]…]
                world.refused = {tuple(one[:3]): one[3] for one in d["places"]}
            elif what == "vanish":
                for reservation in ec2().reservations.values():
                    reservation.instances = [i for i in reservation.instances if i.id != d["id"]]
            elif what == "unvanish":
                one = instance(d["id"])
                next(iter(ec2().reservations.values())).instances.append(one)
            elif what == "state":
                one = instance(d["id"])
                one._state.name, one._state.code = d["name"], CODES[d["name"]]
                if d.get("reason"):
                    one.state_reason = StateReason(d["reason"] + ": as the test wants it", d["reason"])
            elif what == "stray":
                made = ec2().run_instances(
                    "ami-good",
                    1,
                    None,
                    [],
                    is_instance_type_default=False,
                    instance_type="m7i.large",
                    subnet_id=d["subnet"],
                    tags={"instance": d["tags"]},
                )
                out = {"id": made.instances[0].id}
            elif what == "events":
                world.events[d["id"]] = d["events"]
            elif what == "impair":
                (world.impaired.add if d["impaired"] else world.impaired.discard)(d["id"])
            elif what == "announce":
                world.announced[d["id"]][d["path"]] = d["text"]
            elif what == "unannounce":
                world.announced[d["id"]].clear()
            elif what == "identities":
                world.identities = d["all"]
            elif what == "other_key":
                world.other_key.add(d["id"])
                self.sshds.end(d["id"])
            elif what == "kill_for_good":
                world.dead.add(d["id"])
                self.sshds.end(d["id"])
            elif what == "time":
                out = {"text": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(d["unix"]))}
            elif what == "reboot":
                self.sshds.end(d["id"])
                self.sshds.new_boot(d["id"])
            elif what == "stop_ssh":
                self.sshds.signal(d["id"], signal.SIGSTOP)
            elif what == "go_on_ssh":
                self.sshds.signal(d["id"], signal.SIGCONT)
            elif what == "send":
                sqs_backends[ACCOUNT][REGION].send_message("notices", d["body"])
            elif what == "policy":
                attributes = {"Policy": json.dumps(d["policy"])}
                sqs_backends[ACCOUNT][REGION].set_queue_attributes("notices", attributes)
            elif what == "queue":
                queue = sqs_backends[ACCOUNT][REGION].get_queue("notices")
                out = {"messages": len(queue._messages)}
            elif what == "log":
                out = {"calls": world.log[d.get("from", 0) :]}
            elif what == "instances":
                out = {
                    "instances": [
                        {
                            "id": i.id,
                            "state": i._state.name,
                            "spot": is_spot(i),
                            "type": i.instance_type,
                            "subnet": i._subnet_id,
                            "zone": i._placement.zone,
                            "address": i.private_ip,
                            "tags": {t["key"]: t["value"] for t in i.get_tags()},
                        }
                        for i in world.launched
                    ]
                }
            elif what == "templates":
                out = {"templates": [t.name for t in ec2().launch_templates.values()]}
            else:
                return self.answer(start, 404, b"{}", "application/json")
        return self.answer(start, 200, json.dumps(out).encode(), "application/json")


def free_port():
    # The ports are below those that the kernel gives to connections.
    for port in range(21000 + os.getpid() % 200 * 50, 32700):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                return port
            except OSError:
                pass
    raise SystemExit("no free port")


def main():
    # The parent may be killed, and the program must end then.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    sshds = Sshds(free_port())
    control = Control(DomainDispatcherApplication(create_backend_app), sshds)
    server = make_server("127.0.0.1", 0, control, threaded=True, request_handler=MotoRequestHandler)
    sshds.base = f"http://127.0.0.1:{server.server_port}"
    backend = ec2()
    vpc = backend.create_vpc("127.77.0.0/16")
    zones = {f"{REGION}a": "127.77.64.0/20", f"{REGION}b": "127.77.80.0/20", f"{REGION}c": "127.77.96.0/20"}
    subnets = {zone: backend.create_subnet(vpc.id, cidr, availability_zone=zone).id for zone, cidr in zones.items()}
    group = backend.create_security_group("hosts", "hosts", vpc_id=vpc.id).id
    sqs_backends[ACCOUNT][REGION].create_queue("notices")

    def end(*_):
        sshds.end_all()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=sshds.keep, daemon=True).start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hello = {
        "endpoint": sshds.base,
        "queue": f"{sshds.base}/{ACCOUNT}/notices",
        "subnets": subnets,
        "group": group,
        "ssh_port": sshds.port,
    }
    print(json.dumps(hello), flush=True)
    sys.stdin.read()
    end()


main()
