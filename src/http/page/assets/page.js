// The page works without this script. With it times say how long ago they were, and the screen changes by itself: one stream for the tab,
// closed while the tab is hidden, and a request each three seconds where there is no stream.
const ago = (seconds) => {
  const s = Math.max(0, Math.round(Math.abs(seconds)));
  const text = s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
};

const age = () => {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const text = ago((now - Date.parse(time.dateTime)) / 1000);
    if (time.dataset.ago !== text) time.dataset.ago = text;
  }
};

// The only way by which a text becomes elements: a screen of this server, parsed apart from the document.
const policy = window.trustedTypes?.createPolicy("wharfinger", { createHTML: (text) => text }) ?? { createHTML: (text) => text };
const parsed = (text) => new DOMParser().parseFromString(policy.createHTML(`<main>${text}</main>`), "text/html").querySelector("main");

const main = document.getElementById("main");
const stale = document.getElementById("stale");
const configuration = document.getElementById("configuration");
const told = document.getElementById("told");
const pause = document.getElementById("pause");
const screen = document.body.dataset.live;

const QUIET = 12000;
const POLL = 3000;
let stream = null;
let heard = Date.now();
let fresh = stale.hidden;
let paused = false;
let waiting = null;
let spoken = 0;

// A reader is not disturbed: while text or a box is selected, or a form of the screen has the focus, a view waits.
const busy = () => {
  const selection = document.getSelection();
  const inside = selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  const chosen = main.querySelector("input[type=checkbox]:checked") !== null;
  return paused || inside || chosen || main.contains(document.activeElement?.closest("form") ?? null);
};

const open = () => new Set([...main.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));

const show = (text) => {
  const next = parsed(text);
  const count = (root) => root.querySelectorAll(".attention tbody > tr").length;
  const [before, after] = [count(main), count(next)];
  const opened = open();
  for (const details of next.querySelectorAll("details")) {
    if (opened.has(details.querySelector("summary")?.textContent)) details.open = true;
  }
  window.Idiomorph.morph(main, [...next.childNodes], {
    morphStyle: "innerHTML",
    ignoreActiveValue: true,
    callbacks: { beforeAttributeUpdated: (name) => name !== "data-ago" },
  });
  age();
  if (before !== after && Date.now() - spoken > 10000) {
    spoken = Date.now();
    told.textContent = after === 0 ? "Nothing needs you." : `${after} things need you.`;
  }
};

const flush = () => {
  if (waiting !== null && !busy()) {
    const text = waiting;
    waiting = null;
    show(text);
  }
  pause.textContent = paused ? (waiting === null ? "Go on" : "Go on (changed)") : "Pause";
};

const view = (text) => {
  waiting = text;
  flush();
};

const tick = (data) => {
  heard = Date.now();
  fresh = data.fresh;
  document.body.dataset.revision = data.revision;
  document.getElementById("role").textContent = data.role;
  configuration.textContent = data.configuration;
  configuration.hidden = data.configuration === "";
  document.getElementById("age").textContent =
    data.age_ms ? `revision ${data.revision}, ${(data.age_ms / 1000).toFixed(1)} s behind` : `revision ${data.revision}`;
};

const warn = () => {
  const quiet = Date.now() - heard;
  const lost = !document.hidden && quiet > QUIET;
  document.body.classList.toggle("lost", lost);
  stale.hidden = fresh && !lost;
  if (lost) stale.textContent = `Not live: no word from the server for ${Math.round(quiet / 1000)} s. This is what it said last.`;
  else if (!fresh) stale.textContent = "This server has not heard of the leader's commits for too long: what it shows may be old.";
};

const since = new URLSearchParams(location.search).get("since") ?? "0";

// Where there is no stream: too many tabs share the connections of this browser, or the server has no place for one.
const poll = async () => {
  if (document.hidden || (stream && stream.readyState === EventSource.OPEN)) return;
  try {
    const answer = await fetch(`/view?at=${encodeURIComponent(screen)}`, { headers: { accept: "application/json" } });
    if (!answer.ok) return;
    const data = await answer.json();
    tick(data.tick);
    view(data.view);
  } catch {
    // The server is away: `warn` says so.
  }
};

const connect = () => {
  if (stream || document.hidden) return;
  stream = new EventSource(`/live?at=${encodeURIComponent(screen)}&since=${encodeURIComponent(since)}`);
  stream.addEventListener("view", (event) => view(event.data));
  stream.addEventListener("tick", (event) => tick(JSON.parse(event.data)));
  stream.addEventListener("refused", () => location.reload());
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) close();
  });
};

const close = () => {
  stream?.close();
  stream = null;
};

age();
setInterval(age, 1000);

if (screen) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    flush();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else {
      heard = Date.now();
      connect();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", connect);
  connect();
  setInterval(() => {
    connect();
    poll();
  }, POLL);
  setInterval(() => {
    warn();
    flush();
  }, 500);
}
