// Adds to pages that read without it: charts from tables, copying, the dot that says "live", keys.
"use strict";

const charts = new Map();
const open = new Set();
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const TONES = ["accent", "bad", "warn", "good", "dim", "text"];

function draw(figure) {
  const table = figure.querySelector("details table");
  const place = figure.querySelector(".plot");
  const heads = [...table.tHead.rows[0].cells].slice(1).filter((head) => !("undrawn" in head.dataset));
  const rows = [...table.tBodies[0].rows];
  const seconds = rows.map((row) => Date.parse(row.querySelector("time").dateTime) / 1000);
  const values = heads.map(({ cellIndex }) =>
    rows.map(({ cells }) => (cells[cellIndex].textContent === "" ? null : Number(cells[cellIndex].textContent))));
  const names = heads.map((head) => head.textContent);
  const strokes = heads.map((head, index) => variable(head.dataset.tone || TONES[index % TONES.length]));
  // columns stand on each other: the whole is drawn first, and what is a part of it over it
  const stacked = figure.hasAttribute("data-bars");
  const order = stacked ? [...names.keys()].reverse() : [...names.keys()];
  const tops = stacked ? values.map((_, last) => rows.map((_, row) => values.slice(0, last + 1).reduce((sum, one) => sum + one[row], 0))) : values;
  const bars = uPlot.paths.bars({ size: [0.8, 40] });
  const series = order.map((index) => ({
    label: names[index],
    stroke: strokes[index],
    value: (_, shown, __, row) => (row === null || shown === null ? "" : values[index][row].toLocaleString("en")),
    points: { show: false },
    ...(stacked ? { fill: strokes[index], paths: bars } : { width: 1.7 }),
  }));
  const data = [seconds, ...order.map((index) => tops[index])];
  const span = seconds.length ? seconds.at(-1) - seconds[0] : 0;
  const days = span > 2 * 86400;
  const clock = (second) => new Date(second * 1000).toISOString().slice(...(days ? [5, 10] : span < 600 ? [11, 19] : [11, 16]));
  const axis = { stroke: variable("dim"), grid: { stroke: variable("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const most = Number(figure.dataset.max) || null;
  const options = {
    width: Math.max(200, place.parentElement.clientWidth),
    height: Number(figure.dataset.height),
    tzDate: (second) => uPlot.tzDate(new Date(second * 1000), "Etc/UTC"),
    series: [{ label: "UTC", value: (_, second) => (second === null ? "" : `${days ? `${clock(second)} ` : ""}${new Date(second * 1000).toISOString().slice(11, 16)}`) }, ...series],
    axes: [{ ...axis, values: (_, ticks) => ticks.map(clock), space: 70, size: 34 }, { ...axis, size: 54, space: 28 }],
    scales: { y: { range: (_, low, high) => [0, most || Math.max(high || 0, 1) * 1.05] } },
    cursor: { drag: { x: false, y: false } },
  };
  charts.get(figure)?.destroy();
  charts.set(figure, new uPlot(options, data, place));
}

function drawAll(root) {
  for (const [figure, chart] of charts) if (!figure.isConnected) { chart.destroy(); charts.delete(figure); }
  for (const figure of root.querySelectorAll("figure[data-chart]")) draw(figure);
  // what is cut off must be reachable with the keyboard
  for (const box of root.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
  for (const block of root.querySelectorAll("pre[data-copy]:not(:has(.copy))")) addCopy(block);
}

function addCopy(block) {
  const text = block.textContent;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  });
  block.append(button);
}

addEventListener("DOMContentLoaded", () => drawAll(document));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => drawAll(document), 150); });

// what was open stays open when a part is renewed
document.addEventListener("toggle", (event) => {
  if (event.target.id) event.target.open ? open.add(event.target.id) : open.delete(event.target.id);
}, true);
document.addEventListener("htmx:sseBeforeMessage", (event) => {
  if (event.detail.type === "ended") location.reload();
  const part = event.target;
  // who reads a part with the keyboard, or has marked some of it, is not disturbed
  if (part.contains(document.activeElement) || (getSelection().toString() && part.contains(getSelection().anchorNode))) event.preventDefault();
});
document.addEventListener("htmx:sseMessage", (event) => {
  for (const id of open) { const details = document.getElementById(id); if (details) details.open = true; }
  drawAll(event.target);
});
const live = (on) => document.getElementById("live")?.toggleAttribute("data-on", on);
document.addEventListener("htmx:sseOpen", () => live(true));
document.addEventListener("htmx:sseError", () => live(false));
document.addEventListener("htmx:sseClose", () => live(false));

addEventListener("keydown", (event) => {
  if (event.key !== "/" || /INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) return;
  const find = document.getElementById("find");
  if (find) { event.preventDefault(); find.focus(); }
});
