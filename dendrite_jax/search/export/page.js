"use strict";

const ROW = 22; // pixels between two leaves
const GAP = 56; // between the longest label of a depth and the nodes of the next one
const RADIUS = 6; // of a node
const LABEL = 40; // characters of a node's text beside it
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
for (const answer of data.answers) nodes.get(answer.node).answer = true;

const scored = [...nodes.values()].filter((node) => node !== root && !isRejected(node));
const ranking = [...new Set(scored.map((node) => node.value))].sort((a, b) => a - b);
const rankOf = new Map(ranking.map((value, rank) => [value, rank]));
const orderOf = (node) => (isRejected(node) || node === root ? -Infinity : node.value);
const byOrder = (a, b) => orderOf(b) - orderOf(a) || b.answer - a.answer;

// A place is what is drawn once: a node, or siblings of one text with all that grows from them.
let places = new Map(); // node's id to its place
let rootPlace = null; // the root's place
const unfolded = new Set(); // nodes whose children show
let selected = data.answers.length ? nodes.get(data.answers[0].node) : root;
let showRejected = false;
let foldEqual = true;

/** Sorts the nodes into places, parents first. No recursion: a path can be long. */
function findPlaces() {
  places = new Map();
  rootPlace = root && { members: [root], above: null, below: [], depth: 0 };
  const stack = rootPlace ? [rootPlace] : [];
  while (stack.length) {
    const place = stack.pop();
    for (const node of place.members) places.set(node.id, place);
    const groups = new Map();
    for (const node of place.members.flatMap((member) => member.children).sort(byOrder)) {
      const key = foldEqual ? `${isRejected(node)} ${node.text}` : node.id;
      if (groups.has(key)) groups.get(key).push(node);
      else groups.set(key, [node]);
    }
    const depth = place.depth + 1;
    place.below = [...groups.values()].map((members) => ({ members, above: place, below: [], depth }));
    stack.push(...place.below);
  }
}

const headOf = (place) => place.members[0];
const hasAnswer = (place) => place.members.some((node) => node.answer);
const isUnfolded = (place) => place.members.some((node) => unfolded.has(node));

function below(place) {
  return showRejected ? place.below : place.below.filter((child) => !isRejected(headOf(child)));
}

/** The nodes from the root down to one, both included. */
function pathTo(node) {
  const path = [];
  for (let at = node; at; at = at.above) path.push(at);
  return path.reverse();
}

/** The colour of a value's rank among the distinct ones, so that no outlier squeezes the rest. */
function colorOf(value) {
  const share = ranking.length > 1 ? rankOf.get(value) / (ranking.length - 1) : 1;
  const at = share * (COLORS.length - 1);
  const low = Math.min(Math.floor(at), COLORS.length - 2);
  const channel = (color, i) => parseInt(color.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mixed = [0, 1, 2].map((i) => {
    const [from, to] = [channel(COLORS[low], i), channel(COLORS[low + 1], i)];
    return Math.round(from + (to - from) * (at - low));
  });
  return `rgb(${mixed.join(", ")})`;
}

const ruler = document.createElement("canvas").getContext("2d");
ruler.font = "12px system-ui, sans-serif";
const widths = new Map();
function widthOf(text) {
  if (!widths.has(text)) widths.set(text, ruler.measureText(text).width);
  return widths.get(text);
}

function short(text) {
  const line = text.trim().replace(/\s+/g, " ");
  const letters = [...line]; // whole characters
  return letters.length > LABEL ? `${letters.slice(0, LABEL - 1).join("")}…` : line;
}

/** The parts of a label and where each begins, right of the node. */
function measure(place) {
  const head = headOf(place);
  const number = below(place).length;
  const parts = [
    ["label", head === root ? "root" : short(head.text) || "(empty)"],
    ["count", place.members.length > 1 ? `×${place.members.length}` : ""],
    ["fold", number ? (isUnfolded(place) ? "−" : `+${number}`) : ""],
  ];
  let x = RADIUS + 5;
  place.label = [];
  for (const [kind, text] of parts.filter(([, words]) => words)) {
    place.label.push({ kind, text, x });
    x += Math.ceil(1.1 * widthOf(text)) + 6; // bold is wider
  }
  place.width = x;
}

/** The places to draw, parents first, each with its x and y. */
function layOut() {
  const shown = [];
  const stack = rootPlace ? [rootPlace] : [];
  const columns = []; // width of each depth
  let leaves = 0;
  while (stack.length) {
    const place = stack.pop();
    shown.push(place);
    measure(place);
    columns[place.depth] = Math.max(columns[place.depth] || 0, place.width);
    place.shown = isUnfolded(place) ? below(place) : [];
    place.y = place.shown.length ? null : ROW * leaves++;
    for (let i = place.shown.length - 1; i >= 0; i--) stack.push(place.shown[i]);
  }
  const starts = [0];
  for (const width of columns) starts.push(starts[starts.length - 1] + width + GAP);
  for (const place of [...shown].reverse()) {
    const { shown: children } = place;
    if (children.length) place.y = (children[0].y + children[children.length - 1].y) / 2;
    place.x = starts[place.depth];
    place.columnEnd = place.x + columns[place.depth];
  }
  return shown;
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

/** From the end of the parent's label, past the labels of its depth, to the edge of the node. */
function drawEdge(place) {
  const { above } = place;
  const [from, end, to] = [above.x + above.width, above.columnEnd, place.x - RADIUS];
  const middle = (end + to) / 2;
  const bend = `C${middle} ${above.y} ${middle} ${place.y} ${to} ${place.y}`;
  return svg("path", { class: "edge", d: `M${from} ${above.y}H${end}${bend}` });
}

function drawPlace(place) {
  const head = headOf(place);
  const kinds = { root: head === root, rejected: isRejected(head), answer: hasAnswer(place) };
  const names = Object.keys(kinds).filter((kind) => kinds[kind]);
  const count = place.members.length;
  const group = svg("g", {
    class: ["node", ...names].join(" "),
    transform: `translate(${place.x} ${place.y})`,
    "data-id": head.id,
    tabindex: 0,
    role: "treeitem",
    "aria-level": place.depth + 1,
    "aria-label": (head === root ? "root" : head.text) + (count > 1 ? `, ${count} times` : ""),
  });
  const circle = svg("circle", { r: RADIUS });
  if (!kinds.root && !kinds.rejected) circle.setAttribute("fill", colorOf(head.value));
  const box = { x: -RADIUS - 3, y: 1 - ROW / 2, width: place.width + RADIUS, height: ROW - 2 };
  group.append(svg("rect", { class: "hit", rx: 4, ...box }), circle);
  for (const { kind, text, x } of place.label) group.append(svg("text", { class: kind, x, y: 4 }, text));
  if (below(place).length) group.setAttribute("aria-expanded", isUnfolded(place));
  return group;
}

function draw() {
  const shown = layOut();
  const edges = svg("g", { id: "edges" });
  edges.append(...shown.filter((place) => place.above).map(drawEdge));
  element("canvas").replaceChildren(edges, ...shown.map(drawPlace));
  markSelected();
}

const drawn = (node) => element("tree").querySelector(`[data-id="${headOf(places.get(node.id)).id}"]`);

function markSelected() {
  const before = element("tree").querySelector(".selected");
  if (before) before.classList.remove("selected");
  const group = selected && drawn(selected);
  if (group) group.classList.add("selected");
}

function showNumber(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(6))) : String(value);
}

function showScore(node) {
  if (node === root && node.value === -Infinity) return "none";
  return isRejected(node) ? "rejected" : showNumber(node.value);
}

/** A list of nodes to select. */
function listOf(id, listed, content) {
  const list = html("ol");
  list.id = id;
  for (const node of listed) {
    const [item, button] = [html("li"), html("button")];
    button.type = "button";
    button.append(content(node));
    button.addEventListener("click", () => select(node));
    if (node === selected && id === "equals") item.className = "shown";
    item.append(button);
    list.append(item);
  }
  return list;
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
    score: showScore(selected),
    visits: selected.visits,
    terminal: selected.terminal ? "yes" : "no",
    outcome: selected.outcome.replaceAll("_", " "),
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
  panel.replaceChildren(html("h2", "Text"), text, html("h2", "Node"), list);
  const { members } = places.get(selected.id);
  if (members.length > 1) {
    const content = (node) => `node ${node.id}, score ${showScore(node)}`;
    panel.append(html("h2", `${members.length} of this text`), listOf("equals", members, content));
  }
  const path = listOf("path", pathTo(selected).slice(1), (node) => html("pre", node.text));
  panel.append(html("h2", "Path"), path);
}

function select(node) {
  selected = node;
  markSelected();
  showDetails();
}

function toggle(place) {
  if (!below(place).length) return;
  const open = isUnfolded(place);
  for (const node of place.members) {
    if (open) unfolded.delete(node);
    else unfolded.add(node);
  }
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

function placeAt(event) {
  const group = event.target.closest(".node");
  return group ? places.get(Number(group.dataset.id)) : null;
}

element("tree").addEventListener("click", (event) => {
  const place = placeAt(event);
  if (!place) return;
  if (event.target.classList.contains("fold")) toggle(place);
  else select(headOf(place));
});
element("tree").addEventListener("dblclick", (event) => {
  const place = placeAt(event);
  if (place && !event.target.classList.contains("fold")) toggle(place);
});
element("tree").addEventListener("keydown", (event) => {
  const place = placeAt(event);
  if (!place || !["Enter", " "].includes(event.key)) return;
  event.preventDefault();
  if (place.members.includes(selected)) {
    toggle(place);
    drawn(headOf(place)).focus();
  } else {
    select(headOf(place));
  }
});

function redrawOn(id, event, change) {
  element(id).addEventListener(event, (happened) => {
    change(happened.target);
    draw();
    showDetails();
    fit();
  });
}
redrawOn("expand", "click", unfoldAll);
redrawOn("collapse", "click", unfoldAnswers);
redrawOn("rejected", "change", (box) => { showRejected = box.checked; });
redrawOn("equal", "change", (box) => {
  foldEqual = box.checked;
  findPlaces();
});

const count = (number, name) => `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;

function showHeading() {
  const about = [];
  if (data.method !== undefined) about.push(data.method);
  for (const [name, size] of Object.entries(data.sizes ?? {})) about.push(`${name} ${size}`);
  if (data.seed !== undefined) about.push(`seed ${data.seed}`);
  if (data.model !== undefined) about.push(`model ${data.model}`);
  const rejected = [...nodes.values()].filter(isRejected).length;
  const summary = [
    count(nodes.size - 1, "node"),
    `${rejected.toLocaleString("en")} rejected`,
    count(data.answers.length, "answer"),
    `${data.ledger.generated.toLocaleString("en")} tokens generated`,
    `${data.ledger.reused.toLocaleString("en")} reused`,
    count(data.ledger.forks, "fork"),
  ];
  if (data.at_capacity) summary.push("stopped growing for want of room");
  if (data.cut) summary.push("cut before its end");
  element("title").textContent = data.title || "Search tree";
  element("about").textContent = about.join(" · ");
  element("summary").textContent = summary.join(" · ");
  if (!data.answers.length) element("reason").textContent = `No answer: ${data.reason ?? "none found"}`;
  element("scale").style.background = `linear-gradient(to right, ${COLORS.join(", ")})`;
  element("worst").textContent = ranking.length ? showNumber(ranking[0]) : "–";
  element("best").textContent = ranking.length ? showNumber(ranking[ranking.length - 1]) : "–";
}
