// A box that is drawn on the map lists what lies in it: it fills in the form that asks for the same in numbers.
"use strict";

let brush = null; // {svg, start, rect} while the pointer is down

function on_map(svg, event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
}

addEventListener("pointerdown", event => {
  const svg = event.target.closest?.("svg.map");
  if (svg && event.button === 0 && event.pointerType !== "touch") brush = {svg, start: on_map(svg, event), rect: null};
});

addEventListener("dragstart", event => { if (event.target.closest?.("svg.map")) event.preventDefault(); });

addEventListener("pointermove", event => {
  if (!brush) return;
  const {svg, start} = brush, now = on_map(svg, event);
  if (!brush.rect) {
    if (Math.hypot(now.x - start.x, now.y - start.y) < 5) return; // a click
    svg.setPointerCapture(event.pointerId); // so that no point is clicked at the end
    brush.rect = svg.appendChild(document.createElementNS(svg.namespaceURI, "rect"));
    brush.rect.classList.add("brush");
  }
  const [left, top, right, bottom] = svg.dataset.plot.split(",").map(Number);
  const [l, b, r, t] = svg.dataset.range.split(",").map(Number);
  const within = (value, low, high) => Math.min(Math.max(value, low), high);
  const xs = [start.x, now.x].map(x => within(x, left, right)).sort((one, other) => one - other);
  const ys = [start.y, now.y].map(y => within(y, top, bottom)).sort((one, other) => one - other);
  for (const [name, value] of Object.entries({x: xs[0], y: ys[0], width: xs[1] - xs[0], height: ys[1] - ys[0]}))
    brush.rect.setAttribute(name, value);
  const across = x => l + (x - left) / (right - left) * (r - l), up = y => t - (y - top) / (bottom - top) * (t - b);
  const box = {left: across(xs[0]), bottom: up(ys[1]), right: across(xs[1]), top: up(ys[0])};
  for (const [name, value] of Object.entries(box)) document.getElementById(`box-${name}`).value = +value.toPrecision(5);
});

addEventListener("pointerup", () => {
  const drawn = brush?.rect;
  brush = null;
  if (drawn) document.getElementById("box").requestSubmit();
});

addEventListener("pointercancel", () => { brush?.rect?.remove(); brush = null; });
