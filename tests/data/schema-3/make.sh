#!/bin/bash
# Makes a database with leases and resources of every state that a server of this version can show.
# Arguments: the program, an empty folder. Prints: the numbers of leases and resources by state. Exits: 0 made, else a command failed.
set -eu
B=$1
D=$2
PORT=${PORT:-17411}
export WHARFINGER_SERVER=http://127.0.0.1:$PORT
mkdir -p "$D/bin" "$D/origin"
cd "$D"
# A git that hangs while the file `hang` exists: calls of an adapter stay under way.
cat >bin/git <<'EOF'
#!/bin/sh
[ -e FOLDER/hang ] && exec sleep 3600
exec /usr/bin/git "$@"
EOF
sed -i "s|FOLDER|$D|" bin/git
chmod +x bin/git
git -C origin init -q -b main
git -C origin -c user.name=t -c user.email=t@e.org commit -q --allow-empty -m first
{
  printf '[server]\nlisten = "127.0.0.1:%s"\n[store]\npath = "w.db"\n' "$PORT"
  for pool in ready queue quarantined held drained gone cordoned; do
    printf '[[pool]]\nname = "%s"\nadapter = "local"\nslots = 4\nmin_ready = 1\n[pool.local]\nroot = "%s"\n' "$pool" "$D/$pool"
  done
  for pool in clones slow; do
    printf '[[pool]]\nname = "%s"\nadapter = "copies"\non = "ready"\nmax = 2\n[pool.copies]\nrepository = "%s/origin"\n' "$pool" "$D"
  done
} >w.toml
sed -i '/name = "queue"/,/min_ready/ s/slots = 4/slots = 1/' w.toml
PATH=$D/bin:$PATH setsid "$B" serve --config w.toml >serve.log 2>&1 &
SERVER=$!
for _ in $(seq 200); do
  "$B" pools >/dev/null 2>&1 && break
  sleep 0.2
done
wf() { "$B" --json "$@"; }
lease() { wf lease --holder data --ttl 12h --wait 60s "$@" 2>>err.log | python3 -c 'import json,sys; d=json.load(sys.stdin); print((d.get("lease") or d["leases"][0])["id"])'; }
of() { wf get "$1" | python3 -c 'import json,sys; d=json.load(sys.stdin); print(d["resource_id"])'; }
state() { wf get "$1" | python3 -c 'import json,sys; d=json.load(sys.stdin); print(d["state"])'; }
until_state() {
  for _ in $(seq 300); do
    [ "$(state "$1")" = "$2" ] && return
    sleep 0.2
  done
  echo "$1 is never $2" >&2
}

ok=$(lease -p ready)
wf release "$ok" --note "all well" >/dev/null
failed=$(lease -p ready)
wf release "$failed" --outcome failed --note 'a "quoted" note' >/dev/null
tainted=$(lease -p ready)
wf release "$tainted" --outcome tainted >/dev/null
short=$(wf lease --holder data --ttl 5s --wait 30s -p ready | python3 -c 'import json,sys; print(json.load(sys.stdin)["lease"]["id"])')
broken=$(lease -p ready --replace --meta build=17 --meta note='a "quoted" note')
wf break "$broken" -m "for the test" >/dev/null
lease -p ready --work nightly --expected 2h >/dev/null
lease -p held --count 2 >/dev/null
lease -p queue >/dev/null
wf lease --holder data -p queue --wait 100ms --ttl 12h >/dev/null 2>&1 || true
wf lease --holder data -p queue --wait 100ms --queue-for 1s --ttl 12h >/dev/null 2>&1 || true
cancelled=$(wf ls | python3 -c 'import json,sys; print([l["id"] for l in json.load(sys.stdin)["leases"] if l["state"]=="QUEUED"][0])')
wf release "$cancelled" >/dev/null
wf lease --holder data -p queue --wait 100ms --ttl 12h --priority 5 >/dev/null 2>&1 || true
wf lease --holder data -p queue --wait 100ms --ttl 12h >/dev/null 2>&1 || true

q=$(lease -p quarantined)
wf quarantine "$(of "$q")" -m "look at the disk" >/dev/null
h=$(lease -p held)
wf hold "$h" --for 10h -m "a strange failure" >/dev/null
wf release "$h" --outcome failed >/dev/null
d=$(lease -p drained)
wf drain "$(of "$d")" -m "old machine" >/dev/null
g=$(lease -p gone)
wf recycle "$(of "$g")" >/dev/null
c=$(lease -p cordoned)
wf cordon "$(of "$c")" -m "no more today" >/dev/null
wf cordon -p cordoned -m "the whole pool" >/dev/null
wf release "$c" >/dev/null

clone=$(lease -p clones --branch main)
second=$(lease -p clones --branch main)
wf release "$second" >/dev/null
until_state "$short" EXPIRED
sleep 2
touch hang
# Under way: a preparation, a provision, a check and a clean-up.
wf lease --holder data -p clones --branch main --wait 1s --ttl 12h >/dev/null 2>>err.log || true
wf lease --holder data -p slow --branch main --wait 1s --ttl 12h >/dev/null 2>>err.log || true
wf report "$clone" "files are missing" >/dev/null 2>>err.log || true
sleep 3
wf ls --all >ls.json
wf resources --all >resources.json
kill -9 $SERVER
wait $SERVER 2>/dev/null || true
"$B" db dump --config w.toml dump.jsonl 2>>err.log
python3 -c 'import sqlite3; c = sqlite3.connect("w.db"); c.execute("PRAGMA wal_checkpoint(TRUNCATE)"); c.close()'
python3 - <<'EOF'
import json, collections
print(collections.Counter(l["state"] for l in json.load(open("ls.json"))["leases"]))
print(collections.Counter(r["state"] for r in json.load(open("resources.json"))["resources"]))
EOF
