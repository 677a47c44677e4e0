// Adds to pages that read without it: charts from tables, copying, the dot that says "live", keys.
"use strict";

const charts = new Map();
const open = new Set();
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const TONES = ["accent", "bad", "warn", "good", "dim", "text"];

function draw(figure) {
  const table = figure.querySelector("table");
  const place = figure.querySelector(".plot");
  const heads = [...table.tHead.rows[0].cells].slice(1);
  const rows = [...table.tBodies[0].rows];
  const data = [rows.map((row) => Date.parse(row.querySelector("time").dateTime) / 1000)];
  const bars = figure.hasAttribute("data-bars") && uPlot.paths.bars({ size: [0.8, 40] });
  const series = heads.map((head, index) => {
    data.push(rows.map((row) => (row.cells[index + 1].textContent === "" ? null : Number(row.cells[index + 1].textContent))));
    const stroke = variable(head.dataset.tone || TONES[index % TONES.length]);
    return bars
      ? { label: head.textContent, stroke, fill: stroke, paths: bars, points: { show: false } }
      : { label: head.textContent, stroke, width: 1.6, points: { show: false } };
  });
  const axis = { stroke: variable("dim"), grid: { stroke: variable("line"), width: 1 }, ticks: { stroke: variable("line") }, font: "12px system-ui, sans-serif" };
  const most = Number(figure.dataset.max) || null;
  const options = {
    width: Math.max(200, place.parentElement.clientWidth),
    height: Number(figure.dataset.height),
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    series: [{ label: "UTC" }, ...series],
    axes: [axis, { ...axis, size: 54 }],
    scales: { y: { range: (_, low, high) => [Math.min(0, low || 0), most || Math.max(high || 0, 1) * 1.05] } },
    cursor: { drag: { x: false, y: false } },
  };
  charts.get(figure)?.destroy();
  charts.set(figure, new uPlot(options, data, place));
}

function drawAll(root) {
  for (const [figure, chart] of charts) if (!figure.isConnected) { chart.destroy(); charts.delete(figure); }
  for (const figure of root.querySelectorAll("figure[data-chart]")) draw(figure);
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
