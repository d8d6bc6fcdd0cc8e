// The live view: rows from server-sent events, newest first. Text of clients only ever goes through textContent.
"use strict";

const MAX_ROWS = 500;

const table = document.querySelector("[data-live]");
const body = table.tBodies[0];
const state = document.querySelector("[data-live-state]");
const empty = document.querySelector("[data-live-empty]");
const filter = document.querySelector("#filter");
const pause = document.querySelector("[data-live-pause]");
let paused = false;
let held = [];

const short = (value) => {
  for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return (value / size).toFixed(1) + unit;
  }
  return String(value);
};

const cell = (row, text, className) => {
  const made = row.insertCell();
  made.textContent = text ?? "";
  if (className) made.className = className;
  return made;
};

const WORDS = { started: "request", described: "prompt", tool: "tool call", thought: "reasoning", ended: "end", refused: "refused" };

const contentOf = (event) => {
  switch (event.kind) {
    case "described": return event.prompt ?? "";
    case "tool": return event.tool + (event.input ? " " + event.input : "");
    case "thought": return event.content ?? "";
    case "ended": return event.error_type ? event.error_type + (event.error_message ? ": " + event.error_message : "") : "";
    case "refused": return event.host + ": " + event.reason;
    default: return event.route ?? "";
  }
};

const show = (event) => {
  const row = body.insertRow(0);
  row.dataset.kind = event.kind;
  cell(row, event.at.slice(11, 19), "time");
  cell(row, event.user);
  const what = cell(row, "");
  const tag = document.createElement("span");
  const failed = event.kind === "refused" || (event.kind === "ended" && event.outcome !== "completed");
  tag.className = "tag" + (failed ? " bad" : event.kind === "ended" ? " good" : "");
  tag.textContent = event.kind === "ended" ? event.outcome.replaceAll("_", " ") : WORDS[event.kind] ?? event.kind;
  what.append(tag);
  const content = cell(row, "", "wide");
  const text = document.createElement(event.session_id || event.kind === "ended" ? "a" : "span");
  text.textContent = contentOf(event).slice(0, 400) || (event.kind === "ended" ? "open the session" : "");
  if (text instanceof HTMLAnchorElement) text.href = "/session?" + new URLSearchParams({ id: event.interception_id });
  content.append(text);
  cell(row, event.model);
  cell(row, event.client);
  const tokens = ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens"]
    .reduce((sum, name) => sum + (event[name] ?? 0), 0);
  cell(row, event.kind === "ended" ? short(tokens) : "", "num");
  cell(row, event.kind === "ended" ? event.duration_seconds.toFixed(1) + " s" : "", "num");
  hide(row);
  while (body.rows.length > MAX_ROWS) body.deleteRow(-1);
  empty.hidden = true;
};

const hide = (row) => {
  const words = filter.value.trim().toLowerCase();
  row.hidden = Boolean(words) && !row.textContent.toLowerCase().includes(words);
};

const take = (message) => {
  const event = JSON.parse(message.data);
  if (paused) {
    held.push(event);
    held = held.slice(-MAX_ROWS);
    pause.textContent = "Go on (" + held.length + ")";
  } else {
    show(event);
  }
};

const say = (text, className) => {
  state.textContent = text;
  state.className = "tag " + className;
};

const source = new EventSource(table.dataset.live);
source.addEventListener("open", () => say("connected", "good"));
source.addEventListener("error", () => say("connecting again", "warn"));
for (const kind of Object.keys(WORDS)) source.addEventListener(kind, take);
source.addEventListener("dropped", (message) => say(JSON.parse(message.data).count + " events missed", "warn"));

filter.addEventListener("input", () => { for (const row of body.rows) hide(row); });
document.querySelector("[data-live-form]").addEventListener("submit", (event) => event.preventDefault());
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Go on" : "Pause";
  if (!paused) {
    held.forEach(show);
    held = [];
  }
});
