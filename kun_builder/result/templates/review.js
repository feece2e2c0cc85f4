"use strict";
// Everything that comes from the corpus is put in as text, never as markup.
const { run, kinds, pairs, key, said } = JSON.parse(document.getElementById("data").textContent);
const KINDS = Object.keys(kinds), THIN = "thin";
const at = (id) => document.getElementById(id);
const tell = (what) => { at("hint").textContent = what; };

// --- where verdicts go: each at once to the server that the page is from; of a page that is a file, into a file to save

const served = said !== null;
let judged = new Map(said || []); // id: {good, kinds}, in the order of judging
let ended = false;

async function ask(what, body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(what, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => null);
  if (!answer || !answer.ok) throw new Error("Not saved: kun-build has ended, or cannot write. Start the review again.");
}

async function put(place, verdict) { // null takes it back
  const { id } = pairs[place];
  if (served) await ask("verdict", { pair: place, good: null, ...verdict });
  judged.delete(id); // the last one judged stands last: it is what undo takes back
  if (verdict) judged.set(id, served ? verdict : { ...verdict, judged: new Date().toISOString() });
  if (!served) keep();
}

async function end() {
  await ask("end", {});
  ended = true;
  show();
  tell("The review has ended, and this page can be closed.");
}

const STORE = `kun-review ${key}`;
let saved = 0; // judgements made since the last download are not safe yet
let changes = 0;
if (!served) try { // kept by the browser, too, where it keeps anything for a file, so that a closed tab loses nothing
  judged = new Map(JSON.parse(localStorage.getItem(STORE) || "[]"));
  changes = judged.size;
} catch { /* no store, or none of ours: the download is what counts */ }

function keep() {
  changes++;
  try { localStorage.setItem(STORE, JSON.stringify([...judged])); } catch { /* as above */ }
}

function lines() {
  return pairs.filter((pair) => judged.has(pair.id)).map((pair) => {
    const { text, ...rest } = pair; // the text is the run's, and stays there
    const line = JSON.stringify({ ...rest, ...judged.get(pair.id), run });
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
  show();
  tell(`Saved ${judged.size} as ${link.download}: kun-build review RUN --take FILE puts them into the run.`);
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

const RULES = {
  output: "Good: the question makes sense by itself, the answer answers all of it, and the text backs every word of the answer.",
  instruction: "Good: the question makes sense by itself, and the text answers it.",
  text: "Good: a text that the dataset should be made of.",
};

function show() {
  const pair = pairs[current], verdict = judged.get(pair.id);
  at("place").textContent = `Pair ${current + 1} of ${pairs.length}, ${judged.size} judged`;
  at("progress").value = judged.size;
  at("rule").textContent = Object.entries(RULES).find(([part]) => pair[part] || part === "text")[1];
  at("question").hidden = !pair.instruction;
  at("instruction").textContent = pair.instruction;
  at("output").textContent = pair.output || "There is none: judge whether the question is one that this text answers.";
  at("output").classList.toggle("none", !pair.output);
  at("text").textContent = pair.text;
  at("text").scrollTop = 0;
  at("good").setAttribute("aria-pressed", String(Boolean(verdict && verdict.good)));
  at("bad").setAttribute("aria-pressed", String(Boolean(verdict && !verdict.good)));
  for (const button of document.querySelectorAll("button.kind"))
    button.setAttribute("aria-pressed", String(chosen.has(button.dataset.kind)));
  for (const button of document.querySelectorAll("button")) button.disabled = ended;
  at("undo").disabled ||= judged.size === 0;
  if (served) return;
  at("save").disabled = judged.size === 0;
  at("unsaved").textContent = changes > saved ? `(${changes - saved} new)` : "";
}

const sentence = (good) => ({ good, kinds: KINDS.filter((kind) => chosen.has(kind) && (!good || kind === THIN)) });

async function toggle(kind) {
  if (!chosen.delete(kind)) chosen.add(kind);
  const before = judged.get(pairs[current].id);
  if (before) await put(current, sentence(before.good)); // a judged pair was opened again: its kinds change, not its side
  show();
}

async function judge(good) {
  await put(current, sentence(good));
  forward();
}

function forward() { // to the next pair that is not judged, from here on and then from the start
  for (let step = 1; step <= pairs.length; step++) {
    const place = (current + step) % pairs.length;
    if (!judged.has(pairs[place].id)) return open(place);
  }
  open(current);
  tell(`All ${pairs.length} are judged. ` + (served ? "E ends the review." : "S saves them."));
}

async function undo() {
  const last = pairs.findIndex((pair) => pair.id === [...judged.keys()].pop());
  if (last < 0) return;
  await put(last, null);
  open(last);
}

// --- keys and buttons

const KEYS = { g: () => judge(true), b: () => judge(false), n: forward, u: undo, Backspace: undo, ArrowRight: forward };
Object.assign(KEYS, served ? { e: end } : { s: save });
let last = Promise.resolve(); // one thing after the other, however fast the keys come
function act(action) {
  if (!ended) last = last.then(action).catch((error) => tell(error.message));
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const kind = /^[1-9]$/.test(key) ? KINDS[Number(key) - 1] : undefined;
  if (!kind && !KEYS[key]) return;
  event.preventDefault();
  act(kind ? () => toggle(kind) : KEYS[key]);
});
for (const [id, action] of [["good", KEYS.g], ["bad", KEYS.b], ["next", forward], ["undo", undo], served ? ["end", end] : ["save", save]])
  at(id).addEventListener("click", () => act(action));
for (const button of document.querySelectorAll("button.kind"))
  button.addEventListener("click", () => act(() => toggle(button.dataset.kind)));
if (!served) addEventListener("beforeunload", (event) => { if (changes > saved) event.preventDefault(); });

const first = pairs.findIndex((pair) => !judged.has(pair.id));
open(first < 0 ? 0 : first);
