// Zoom and pan: the canvas is moved and scaled within the window.

const MARGIN = 16; // pixels around a fitted tree
const BUTTONS = 36; // pixels below it that the zoom's buttons lie over
const STEP = 60; // that an arrow key moves the tree by
const [FARTHEST, CLOSEST] = [0.05, 4]; // scales
const view = { x: 0, y: 0, scale: 1 };
let fitted = true; // until the reader moves the tree

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

function showView() {
  const { x, y, scale } = view;
  element("canvas").setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
}

/** Fits the whole tree into the window; the root alone, and what is near, where it is too large. */
function fit() {
  const { width, height } = element("view").getBoundingClientRect();
  const box = element("canvas").getBBox();
  const [roomX, roomY] = [width - 2 * MARGIN, height - 2 * MARGIN - BUTTONS];
  view.scale = clamp(Math.min(roomX / box.width, roomY / box.height), FARTHEST, 1);
  view.x = MARGIN - view.scale * box.x + Math.max(roomX - view.scale * box.width, 0) / 2;
  const middle = view.scale * box.height > roomY && rootPlace ? rootPlace.y : box.y + box.height / 2;
  view.y = MARGIN + roomY / 2 - view.scale * middle;
  fitted = true;
  showView();
}

function move(dx, dy) {
  view.x += dx;
  view.y += dy;
  fitted = false;
  showView();
}

/** Zooms by a factor; the point (x, y) of the window stays where it is. */
function zoom(factor, x, y) {
  const scale = clamp(view.scale * factor, FARTHEST, CLOSEST);
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  fitted = false;
  showView();
}

function zoomMiddle(factor) {
  const { width, height } = element("view").getBoundingClientRect();
  zoom(factor, width / 2, height / 2);
}

/** Moves a node that is out of sight to the middle. */
function reveal(group) {
  const [frame, box] = [element("view"), group].map((each) => each.getBoundingClientRect());
  const seen = box.left >= frame.left && box.top >= frame.top && box.bottom <= frame.bottom;
  if (seen && box.left + 20 <= frame.right) return;
  move((frame.left + frame.right) / 2 - box.left, (frame.top + frame.bottom) / 2 - box.top);
}

const pointers = new Map(); // those that are down: id to [x, y]
let travelled = 0; // pixels since the first one came down

function middleOf(points) {
  const { left, top: above } = element("view").getBoundingClientRect();
  const total = points.reduce(([x, y], point) => [x + point[0], y + point[1]], [0, 0]);
  return [total[0] / points.length - left, total[1] / points.length - above];
}

const spread = ([a, b]) => (b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0);

element("tree").addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  if (!pointers.size) travelled = 0;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
});
window.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  const before = [...pointers.values()];
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  const after = [...pointers.values()];
  const [from, to] = [middleOf(before), middleOf(after)];
  travelled += Math.abs(to[0] - from[0]) + Math.abs(to[1] - from[1]);
  if (travelled <= 4 && after.length === 1) return; // an unsteady click
  element("tree").classList.add("dragged");
  move(to[0] - from[0], to[1] - from[1]);
  if (after.length > 1 && spread(before) > 0) zoom(spread(after) / spread(before), ...to);
});
for (const name of ["pointerup", "pointercancel"]) {
  window.addEventListener(name, (event) => {
    pointers.delete(event.pointerId);
    if (!pointers.size) element("tree").classList.remove("dragged");
  });
}
// The end of a drag is no click on the node below it.
element("tree").addEventListener("click", (event) => {
  if (travelled > 4) event.stopImmediatePropagation();
}, { capture: true });

element("view").addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
  const [dx, dy] = [lines * event.deltaX, lines * event.deltaY];
  if (event.shiftKey) move(-dx || -dy, dx ? -dy : 0);
  else zoom(Math.exp(-dy / (event.ctrlKey ? 100 : 400)), ...middleOf([[event.clientX, event.clientY]]));
}, { passive: false });

const KEYS = {
  ArrowLeft: () => move(STEP, 0),
  ArrowRight: () => move(-STEP, 0),
  ArrowUp: () => move(0, STEP),
  ArrowDown: () => move(0, -STEP),
  "+": () => zoomMiddle(1.25),
  "=": () => zoomMiddle(1.25),
  "-": () => zoomMiddle(0.8),
  0: fit,
};
element("view").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
element("tree").addEventListener("focusin", (event) => {
  const group = event.target.closest(".node");
  if (group && !pointers.size) reveal(group);
});
element("closer").addEventListener("click", () => zoomMiddle(1.25));
element("farther").addEventListener("click", () => zoomMiddle(0.8));
element("fit").addEventListener("click", fit);
new ResizeObserver(() => { if (fitted) fit(); }).observe(element("view"));

showHeading();
findPlaces();
if (nodes.size <= SMALL) unfoldAll();
else unfoldAnswers();
draw();
showDetails();
fit();
