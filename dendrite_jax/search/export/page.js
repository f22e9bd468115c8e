"use strict";

const ROW = 22; // pixels between two leaves
const COLUMN = 220; // between a node and its children
const MARGIN = 20;
const LABEL = 26; // characters of a node's text beside it
const SMALL = 400; // nodes of a tree that opens unfolded
const COLORS = ["#440154", "#3b528b", "#21908c", "#5dc963", "#fde725"]; // worst to best

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("search").textContent);
const nodes = new Map();
for (const row of data.nodes) {
  const node = { ...row, value: Number(row.value), children: [], answer: false };
  node.above = row.parent === null ? null : nodes.get(row.parent);
  nodes.set(node.id, node);
  if (node.above) node.above.children.push(node);
}
const root = data.nodes.length ? nodes.get(data.nodes[0].id) : null;
const isRejected = (node) => node !== root && !(node.value > -Infinity);
for (const node of nodes.values()) node.children.sort((a, b) => orderOf(b) - orderOf(a));
for (const answer of data.answers) nodes.get(answer.node).answer = true;

const unfolded = new Set();
let selected = data.answers.length ? nodes.get(data.answers[0].node) : root;
let showRejected = false;
const scored = [...nodes.values()].filter((node) => node !== root && !isRejected(node));
const ranking = [...new Set(scored.map((node) => node.value))].sort((a, b) => a - b);
const rankOf = new Map(ranking.map((value, rank) => [value, rank]));

function orderOf(node) {
  return isRejected(node) || node === root ? -Infinity : node.value;
}

/** The path from the root down to a node, both included. */
function pathTo(node) {
  const path = [];
  for (let at = node; at; at = at.above) path.push(at);
  return path.reverse();
}

/** The colour of a value's rank among the distinct ones, so that no outlier squeezes the rest. */
function colorOf(value) {
  const share = ranking.length > 1 ? rankOf.get(value) / (ranking.length - 1) : 1;
  const place = share * (COLORS.length - 1);
  const low = Math.min(Math.floor(place), COLORS.length - 2);
  const channel = (color, i) => parseInt(color.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => {
    const [from, to] = [channel(COLORS[low], i), channel(COLORS[low + 1], i)];
    return Math.round(from + (to - from) * (place - low));
  });
  return `rgb(${mixed.join(", ")})`;
}

function childrenOf(node) {
  return showRejected ? node.children : node.children.filter((child) => !isRejected(child));
}

function childrenShown(node) {
  return unfolded.has(node) ? childrenOf(node) : [];
}

/** The nodes to draw, parents first; gives each its row. No recursion: a path can be long. */
function layOut() {
  const shown = [];
  const stack = root ? [root] : [];
  let leaves = 0;
  while (stack.length) {
    const node = stack.pop();
    shown.push(node);
    const below = childrenShown(node);
    node.row = below.length ? null : leaves++;
    for (let i = below.length - 1; i >= 0; i--) stack.push(below[i]);
  }
  for (let i = shown.length - 1; i >= 0; i--) {
    const below = childrenShown(shown[i]);
    if (below.length) shown[i].row = (below[0].row + below[below.length - 1].row) / 2;
  }
  return { shown, leaves };
}

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function html(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

const xOf = (node) => MARGIN + node.depth * COLUMN;
const yOf = (node) => MARGIN + node.row * ROW;

function short(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > LABEL ? `${line.slice(0, LABEL - 1)}…` : line;
}

function drawNode(node) {
  const kinds = { root: node === root, rejected: isRejected(node), answer: node.answer };
  const names = Object.keys(kinds).filter((kind) => kinds[kind]);
  const label = node === root ? "" : short(node.text) || "(empty)";
  const group = svg("g", {
    class: ["node", ...names].join(" "),
    transform: `translate(${xOf(node)} ${yOf(node)})`,
    "data-id": node.id,
    tabindex: 0,
    role: "treeitem",
    "aria-level": node.depth + 1,
    "aria-label": node === root ? "root" : node.text,
  });
  const circle = svg("circle", { r: 6 });
  if (!kinds.root && !kinds.rejected) circle.setAttribute("fill", colorOf(node.value));
  group.append(circle, svg("text", { class: "label", x: 11, y: 4 }, label));
  const below = childrenOf(node).length;
  if (below) {
    const open = unfolded.has(node);
    const sign = open ? "−" : `+${below}`;
    group.setAttribute("aria-expanded", open);
    group.append(svg("text", { class: "fold", x: -9, y: -8 }, sign));
  }
  return group;
}

function draw() {
  const { shown, leaves } = layOut();
  const edges = shown.filter((node) => node.above).map((node) => {
    const [x, y, fromX, fromY] = [xOf(node), yOf(node), xOf(node.above), yOf(node.above)];
    const bend = x - 50;
    return `M${fromX} ${fromY}H${bend - 50}C${bend} ${fromY} ${bend} ${y} ${x} ${y}`;
  });
  const depth = shown.reduce((most, node) => Math.max(most, node.depth), 0);
  const tree = element("tree");
  tree.setAttribute("width", 2 * MARGIN + (depth + 1) * COLUMN);
  tree.setAttribute("height", 2 * MARGIN + Math.max(leaves - 1, 0) * ROW);
  tree.replaceChildren(svg("path", { id: "edges", d: edges.join("") }), ...shown.map(drawNode));
  markSelected();
}

const drawnNode = (node) => element("tree").querySelector(`[data-id="${node.id}"]`);

function markSelected() {
  const before = element("tree").querySelector(".selected");
  if (before) before.classList.remove("selected");
  const group = selected && drawnNode(selected);
  if (group) group.classList.add("selected");
}

function showNumber(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(6))) : String(value);
}

function showDetails() {
  const panel = element("details");
  if (!selected) {
    panel.replaceChildren(html("p", "The tree is empty."));
    return;
  }
  const facts = {
    node: selected.id,
    depth: selected.depth,
    score: isRejected(selected) ? "rejected" : showNumber(selected.value),
    visits: selected.visits,
    terminal: selected.terminal ? "yes" : "no",
    "log-probability, model": showNumber(Number(selected.raw_logprob)),
    "log-probability, sampled": showNumber(Number(selected.logprob)),
    tokens: selected.tokens.join(" "),
  };
  const list = html("dl");
  for (const [name, value] of Object.entries(facts)) {
    const fact = html("dd", String(value));
    fact.dataset.fact = name;
    list.append(html("dt", name), fact);
  }
  const text = html("pre", selected.text);
  text.id = "text";
  const path = html("ol");
  path.id = "path";
  for (const node of pathTo(selected).slice(1)) {
    const item = html("li");
    item.append(html("pre", node.text));
    item.addEventListener("click", () => select(node));
    path.append(item);
  }
  panel.replaceChildren(html("h2", "Text"), text, html("h2", "Node"), list);
  panel.append(html("h2", "Path"), path);
}

function select(node) {
  selected = node;
  markSelected();
  showDetails();
}

function toggle(node) {
  if (!childrenOf(node).length) return;
  if (!unfolded.delete(node)) unfolded.add(node);
  draw();
}

function unfoldAnswers() {
  unfolded.clear();
  if (root) unfolded.add(root);
  for (const answer of data.answers) {
    for (const node of pathTo(nodes.get(answer.node).above)) unfolded.add(node);
  }
}

function unfoldAll() {
  for (const node of nodes.values()) unfolded.add(node);
}

function nodeAt(event) {
  const group = event.target.closest(".node");
  return group ? nodes.get(Number(group.dataset.id)) : null;
}

element("tree").addEventListener("click", (event) => {
  const node = nodeAt(event);
  if (!node) return;
  if (event.target.classList.contains("fold")) toggle(node);
  else select(node);
});
element("tree").addEventListener("dblclick", (event) => {
  const node = nodeAt(event);
  if (node) toggle(node);
});
element("tree").addEventListener("keydown", (event) => {
  const node = nodeAt(event);
  if (!node || !["Enter", " "].includes(event.key)) return;
  event.preventDefault();
  if (node === selected) {
    toggle(node);
    drawnNode(node).focus();
  } else {
    select(node);
  }
});
element("expand").addEventListener("click", () => { unfoldAll(); draw(); });
element("collapse").addEventListener("click", () => { unfoldAnswers(); draw(); });
element("rejected").addEventListener("change", (event) => {
  showRejected = event.target.checked;
  draw();
});

const count = (number, name) => `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
const rejectedCount = [...nodes.values()].filter(isRejected).length;
const summary = [
  count(nodes.size - 1, "node"),
  `${rejectedCount.toLocaleString("en")} rejected`,
  count(data.answers.length, "answer"),
  `${data.ledger.generated.toLocaleString("en")} tokens generated`,
  `${data.ledger.reused.toLocaleString("en")} reused`,
  count(data.ledger.forks, "fork"),
];
if (data.at_capacity) summary.push("stopped growing for want of room");
if (data.cut) summary.push("cut before its end");
if (data.answers.length === 0 && data.reason) summary.push(data.reason);
element("title").textContent = data.title || "Search tree";
element("summary").textContent = summary.join(" · ");
element("scale").style.background = `linear-gradient(to right, ${COLORS.join(", ")})`;
element("worst").textContent = ranking.length ? showNumber(ranking[0]) : "–";
element("best").textContent = ranking.length ? showNumber(ranking[ranking.length - 1]) : "–";
if (nodes.size <= SMALL) unfoldAll();
else unfoldAnswers();
draw();
showDetails();
if (selected) drawnNode(selected).scrollIntoView({ block: "center", inline: "nearest" });
