"use strict";
// Everything that comes from the corpus is put in as text, never as markup.
const { run, signature, kinds, pairs } = JSON.parse(document.getElementById("data").textContent);
const KINDS = Object.keys(kinds), THIN = "thin";
const at = (id) => document.getElementById(id);

// --- what was judged: kept by the browser, too, where it keeps anything for a file, so that a closed tab loses nothing

const STORE = `kun-review ${signature}`;
const known = new Set(pairs.map((pair) => pair.id));
let judged = new Map(); // id: {good, kinds, judged}, in the order of judging
let saved = 0; // judgements made since the last download are not safe yet
let changes = 0;
try {
  const kept = JSON.parse(localStorage.getItem(STORE) || "[]");
  judged = new Map(kept.filter(([id]) => known.has(id)));
  changes = judged.size;
} catch { /* no store, or none of ours: the download is what counts */ }

function keep() {
  try { localStorage.setItem(STORE, JSON.stringify([...judged])); } catch { /* as above */ }
}

// --- one pair at a time

let current = 0;
let chosen = new Set();

function open(place) {
  current = place;
  const verdict = judged.get(pairs[place].id);
  chosen = new Set(verdict ? verdict.kinds : []);
  show();
}

function show() {
  const pair = pairs[current], verdict = judged.get(pair.id);
  at("place").textContent = `Pair ${current + 1} of ${pairs.length}, ${judged.size} judged`;
  at("progress").value = judged.size;
  at("instruction").textContent = pair.instruction;
  at("output").textContent = pair.output || "There is none: judge whether the question is one that this text answers.";
  at("output").classList.toggle("none", !pair.output);
  at("text").textContent = pair.text;
  at("text").scrollTop = 0;
  at("good").setAttribute("aria-pressed", String(Boolean(verdict && verdict.good)));
  at("bad").setAttribute("aria-pressed", String(Boolean(verdict && !verdict.good)));
  for (const button of document.querySelectorAll("button.kind"))
    button.setAttribute("aria-pressed", String(chosen.has(button.dataset.kind)));
  at("undo").disabled = judged.size === 0;
  at("save").disabled = judged.size === 0;
  at("unsaved").textContent = changes > saved ? `(${changes - saved} new)` : "";
}

function toggle(kind) {
  if (!chosen.delete(kind)) chosen.add(kind);
  const verdict = judged.get(pairs[current].id);
  if (verdict) { // a judged pair was opened again: its kinds change, not its side
    verdict.kinds = KINDS.filter((one) => chosen.has(one) && (!verdict.good || one === THIN));
    changes++;
    keep();
  }
  show();
}

function judge(good) {
  const id = pairs[current].id;
  const said = KINDS.filter((kind) => chosen.has(kind) && (!good || kind === THIN));
  judged.delete(id); // the last one judged stands last: it is what undo takes back
  judged.set(id, { good, kinds: said, judged: new Date().toISOString() });
  changes++;
  keep();
  forward();
}

function forward() { // to the next pair that is not judged, from here on and then from the start
  for (let step = 1; step <= pairs.length; step++) {
    const place = (current + step) % pairs.length;
    if (!judged.has(pairs[place].id)) return open(place);
  }
  open(current);
  at("hint").textContent = `All ${pairs.length} are judged. S saves them; kun-build review RUN --take FILE puts them into the run.`;
}

function undo() {
  const last = [...judged.keys()].pop();
  if (last === undefined) return;
  judged.delete(last);
  changes++;
  keep();
  open(pairs.findIndex((pair) => pair.id === last));
}

// --- saving: a download, one JSON object a line

function lines() {
  return pairs.filter((pair) => judged.has(pair.id)).map((pair) => {
    const { text, ...rest } = pair; // the text is the run's, and stays there
    const line = JSON.stringify({ ...rest, ...judged.get(pair.id), run, signature });
    return line.replace(/[\u0085\u2028\u2029]/g, escaped) + "\n"; // which some readers take for ends of lines
  }).join("");
}

function escaped(character) {
  return "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0");
}

function save() {
  if (!judged.size) return;
  const address = URL.createObjectURL(new Blob([lines()], { type: "application/x-ndjson" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `verdicts-${run.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  saved = changes;
  at("hint").textContent = `Saved ${judged.size} as ${link.download}: kun-build review RUN --take FILE puts them into the run.`;
  show();
}

// --- keys and buttons

const KEYS = { g: () => judge(true), b: () => judge(false), n: forward, u: undo, s: save, Backspace: undo, ArrowRight: forward };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const kind = /^[1-9]$/.test(key) ? KINDS[Number(key) - 1] : undefined;
  if (!kind && !KEYS[key]) return;
  event.preventDefault();
  if (kind) toggle(kind); else KEYS[key]();
});
for (const [id, action] of [["good", KEYS.g], ["bad", KEYS.b], ["next", forward], ["undo", undo], ["save", save]])
  at(id).addEventListener("click", action);
for (const button of document.querySelectorAll("button.kind"))
  button.addEventListener("click", () => toggle(button.dataset.kind));
addEventListener("beforeunload", (event) => { if (changes > saved) event.preventDefault(); });

const first = pairs.findIndex((pair) => !judged.has(pair.id));
open(first < 0 ? 0 : first);
