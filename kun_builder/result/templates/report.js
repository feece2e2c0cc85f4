"use strict";
// Everything that comes from the corpus is put in as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// --- tabs

const tabs = [...document.querySelectorAll("nav button")];
function show(name) {
  for (const tab of tabs) tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
}
const address = () => tabs.find((tab) => "#" + tab.dataset.tab === location.hash)?.dataset.tab || "overview";
for (const tab of tabs) tab.addEventListener("click", () => { show(tab.dataset.tab); location.hash = tab.dataset.tab; });
window.addEventListener("hashchange", () => { show(address()); scrollTo(0, 0); });

// --- differences of two texts: longest common subsequence over words and single Chinese characters

const WORDS = /\p{Script=Han}|[\p{L}\p{N}]+|\s+|[^]/gu;

function differences(before, after) {
  const a = before.match(WORDS) || [], b = after.match(WORDS) || [];
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const x = a.slice(start, a.length - end), y = b.slice(start, b.length - end);
  const middle = x.length * y.length > 16e6 ? [["-", x.join("")], ["+", y.join("")]] : align(x, y);
  return [["=", a.slice(0, start).join("")], ...middle, ["=", a.slice(a.length - end).join("")]];
}

function align(x, y) {
  const width = y.length + 1, length = new Uint16Array((x.length + 1) * width);
  for (let i = x.length - 1; i >= 0; i--)
    for (let j = y.length - 1; j >= 0; j--)
      length[i * width + j] = x[i] === y[j] ? length[(i + 1) * width + j + 1] + 1
        : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
  const parts = [];
  let i = 0, j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) { parts.push(["=", x[i]]); i++; j++; }
    else if (j >= y.length || (i < x.length && length[(i + 1) * width + j] >= length[i * width + j + 1])) parts.push(["-", x[i++]]);
    else parts.push(["+", y[j++]]);
  }
  return parts;
}

function marked(parts, keep, tag) {
  const text = element("p", { class: "text" });
  let run = null;
  for (const [kind, words] of parts) {
    if (kind !== "=" && kind !== keep) continue;
    if (!run || run.kind !== kind) {
      run = { kind, node: kind === "=" ? document.createTextNode("") : element(tag) };
      text.append(run.node);
    }
    if (kind === "=") run.node.data += words; else run.node.append(words);
  }
  return text;
}

// --- one row

const SHOWN = new Set(["id", "instruction", "text", "raw_answer", "output", "_outcome", "_stage", "_reason", "_value"]);

function block(title, content) {
  return element("div", {}, element("h3", {}, title), typeof content === "string" ? element("p", { class: "text" }, content) : content);
}

function said(value) {
  if (Array.isArray(value)) return value.map((part) => (typeof part === "object" ? "\n    " : " ") + said(part)).join("");
  if (value && typeof value === "object") return Object.entries(value).map(([name, part]) => `${name} ${said(part)}`).join(", ");
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
}

function body(row) {
  const inside = element("div", { class: "row" });
  if (row._stage) inside.append(block("Rejected by", `${row._stage}: ${row._reason}${row._value ? ` (${row._value})` : ""}`));
  if (row.instruction) inside.append(block("Instruction", row.instruction));
  const raw = row.raw_answer || row.text || "";
  if (row.output) {
    const parts = differences(raw, row.output);
    inside.append(element("div", { class: "pair" },
      block(row.raw_answer ? "Raw answer" : "Text", marked(parts, "-", "del")), block("Output", marked(parts, "+", "ins"))));
  }
  if (row.text && (!row.output || row.text !== raw)) inside.append(block("Text", row.text));
  const facts = Object.entries(row).filter(([name, value]) => !SHOWN.has(name) && value !== null);
  inside.append(block("Facts", facts.map(([name, value]) => `${name}: ${said(value)}`).join("\n")));
  return inside;
}

function item(row) {
  const summary = element("summary", {}, element("span", { class: "id" }, row.id));
  if (row._stage) summary.append(element("span", { class: "why" }, `${row._stage}: ${row._reason}`));
  summary.append(row.instruction || (row.text || "").slice(0, 120) || "(no text)");
  const made = element("details", {}, summary);
  made.addEventListener("toggle", () => { if (made.open && made.childElementCount === 1) made.append(body(row)); });
  return made;
}

// --- lists with filters

function list(section, rows, totals) {
  const search = section.querySelector("input"), list = section.querySelector(".rows");
  const count = section.querySelector(".count"), more = section.querySelector("button.more");
  const selects = [...section.querySelectorAll("select[data-column]")], order = section.querySelector("select.sort");
  const numbers = new Set(rows.flatMap((row) => Object.keys(row).filter((name) => typeof row[name] === "number")));
  for (const name of numbers) for (const [sign, way] of [["-", "greatest first"], ["+", "least first"]])
    if (name !== "position" && name !== "offset") order.append(element("option", { value: sign + name }, `${name}, ${way}`));
  const searched = rows.map((row) => Object.values(row).filter((v) => typeof v === "string").join("\n").toLowerCase());
  const key = (row, name) => (name === "reason" ? `${row._stage}: ${row._reason}` : row[name]);
  for (const select of selects) {
    const name = select.dataset.column, values = [...new Set(rows.map((row) => key(row, name)))].sort();
    for (const value of values) select.append(element("option", { value }, value));
  }
  let found = [], shown = 0;
  function page() {
    list.append(...found.slice(shown, shown + PAGE).map(item));
    shown = Math.min(found.length, shown + PAGE);
    more.hidden = shown >= found.length;
    count.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} sampled rows; ${totals.toLocaleString("en")} in all`;
  }
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = rows.filter((row, at) => words.every((word) => searched[at].includes(word))
      && selects.every((select) => !select.value || String(key(row, select.dataset.column)) === select.value));
    const sign = order.value[0] === "-" ? -1 : 1, by = order.value.slice(1);
    if (by) found = found.filter((row) => typeof row[by] === "number").sort((a, b) => sign * (a[by] - b[by]));
    list.replaceChildren();
    shown = 0;
    page();
  }
  search.addEventListener("input", filter);
  for (const select of [...selects, order]) select.addEventListener("change", filter);
  more.addEventListener("click", page);
  filter();
}

list(document.getElementById("kept"), data.kept, data.totals.kept);
list(document.getElementById("rejected"), data.rejected, data.totals.rejected);
show(address());
