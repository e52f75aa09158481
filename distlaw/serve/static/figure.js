// What the curves and the map share: colours of the style sheet, axes in powers of ten, size.

import { short } from "./numbers.js";

const { uPlot } = window;
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const powers = (low, high) => Array.from({ length: Math.floor(Math.log10(high) + 1e-9) - Math.ceil(Math.log10(low) - 1e-9) + 1 }, (_, k) => 10 ** (Math.ceil(Math.log10(low) - 1e-9) + k));
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const tenTo = (value) => `10${[...String(Math.round(Math.log10(value)))].map((digit) => SUPERSCRIPTS[digit]).join("")}`;

export const height = (width) => Math.round(Math.min(380, Math.max(250, 0.55 * width)));

/** The words for a press and for pointing, by what the pointer is. */
export const touch = matchMedia("(pointer: coarse)").matches;
export const press = touch ? "Tap" : "Click";

/** Options of an axis: of FLOPs, of parameters, or linear. */
export function axis(kind, label) {
  const lines = { stroke: colour("line"), width: 1 };
  const shared = { label, stroke: colour("soft"), grid: lines, ticks: lines, font: "12px system-ui", labelFont: "13px system-ui", labelSize: 22, labelGap: 2 };
  if (kind === "linear") return { ...shared, size: 56 };
  const write = kind === "flops" ? tenTo : (value) => short(value, 1);
  return {
    ...shared,
    size: kind === "flops" ? 34 : 52,
    splits: (_, __, low, high) => powers(low, high),
    values: (_, splits) => splits.map(write),
  };
}

/** A plot that is made anew for new data, follows the width of its place, and says where it is clicked. */
export class Figure {
  constructor(place, take) {
    this.place = place;
    this.take = take;
    this.drawn = null;
    new ResizeObserver(() => this.resize()).observe(place);
  }

  draw(options, data) {
    this.clear();
    const width = this.place.clientWidth;
    this.drawn = new uPlot({ width, height: height(width), padding: [10, 18, 0, 0], legend: { show: false }, ...options }, data, this.place);
    const { over } = this.drawn;
    over.addEventListener("click", ({ clientX, clientY }) => {
      const { left, top } = over.getBoundingClientRect();
      this.take(this.drawn.posToVal(clientX - left, "x"), this.drawn.posToVal(clientY - top, "y"));
    });
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.drawn && width && width !== this.drawn.width) this.drawn.setSize({ width, height: height(width) });
  }

  clear() {
    this.drawn?.destroy();
    this.drawn = null;
  }
}

/** Lines across a stretch of the plotting area, for what lies outside the fitted runs. */
export function hatch(plot, left, top, width, height, stroke) {
  const { ctx } = plot, step = 7 * devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = devicePixelRatio * 0.7;
  ctx.beginPath();
  const { bbox } = plot;
  for (let x = bbox.left - bbox.height; x < bbox.left + bbox.width; x += step) {
    ctx.moveTo(x, bbox.top + bbox.height);
    ctx.lineTo(x + bbox.height, bbox.top);
  }
  ctx.stroke();
  ctx.restore();
}
