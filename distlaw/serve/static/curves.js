// Gain or loss of every way over compute, with bands, readings at the pointer, and the fitted region.

import { Cursor } from "./cursor.js";
import { axis, colour, Figure, hatch } from "./figure.js";
import { estimate, loss, power, signed, times } from "./numbers.js";
import { element, hue, title } from "./ways.js";

export const FAR = 1.5; // beyond it a plan speaks of extrapolation

export class Curves {
  constructor(place, readings, pick) {
    this.figure = new Figure(place, pick);
    this.readings = readings;
    this.off = new Set();
    const points = () => this.frontier && [this.frontier.budgets, nearest(this.frontier.budgets, this.budget)];
    this.cursor = new Cursor(place, this.figure, points, (at) => this.read(at), pick);
  }

  /** Show a frontier; `budget`, FLOPs, is marked, and `plan` is the answer there. */
  show(frontier, shown, budget, plan) {
    Object.assign(this, { frontier, shown, budget, plan });
    this.cursor.at = null;
    const tracks = Object.entries(frontier.tracks).map(([name, track]) => ({ name, points: track[shown] }));
    this.lines = shown === "gain" ? tracks : [{ name: "direct", points: frontier.direct }, ...tracks];
    const visible = this.lines.filter(({ name }) => !this.off.has(name));
    const data = [frontier.budgets], series = [{}], bands = [];
    for (const { name, points } of visible) {
      const stroke = colour(hue(name)), at = data.length;
      data.push(points.map((each) => each.value), points.map((each) => each.high), points.map((each) => each.low));
      series.push({ stroke, width: 2.25, dash: name === "direct" ? [7, 4] : [], points: { show: false } }, edge(), edge());
      bands.push({ series: [at + 1, at + 2], fill: `${stroke}2b` });
    }
    const ends = [frontier.budgets[0], frontier.budgets.at(-1)];
    this.figure.draw({
      series,
      bands,
      scales: { x: { distr: 3, range: () => ends, time: false }, y: { range: (_, low, high) => padded(low, high, shown) } },
      axes: [axis("flops", "compute (FLOPs)"), axis("linear", `${shown} (nats/token)`)],
      cursor: { drag: { x: false, y: false }, points: { show: (plot, k) => (k % 3 === 1 ? uPlotPoint(plot, k) : null) } },
      hooks: { drawClear: [(plot) => this.background(plot)], draw: [(plot) => this.foreground(plot)], setCursor: [(plot) => this.read(plot.cursor.idx)] },
    }, data);
    this.legend();
    this.read(null);
  }

  /** A button a line, which shows or hides it; kept while the lines are the same, so that it keeps the focus. */
  legend() {
    const names = String(this.lines.map(({ name }) => name));
    if (this.readings.dataset.names !== names) {
      this.readings.dataset.names = names;
      this.readings.replaceChildren(element("span", { className: "at quiet" }), ...this.lines.map(({ name }) => {
        const button = element("button", { type: "button" }, element("i", { className: `dot ${hue(name)}` }), element("span", { textContent: title(name) }), element("span"));
        button.addEventListener("click", () => { this.off.has(name) ? this.off.delete(name) : this.off.add(name); this.show(this.frontier, this.shown, this.budget, this.plan); });
        return button;
      }));
    }
    this.lines.forEach(({ name }, k) => this.readings.children[k + 1].setAttribute("aria-pressed", String(!this.off.has(name))));
  }

  /** The pointer's readings, or the answer's own at the question's budget. */
  read(index) {
    const { budgets, outside } = this.frontier, here = index ?? nearest(budgets, this.budget), asked = index === null || index === undefined;
    const answer = asked ? this.answered() : {}, exact = this.lines.every(({ name }) => answer[name]);
    const where = `at ${power(exact ? this.budget : budgets[here])} FLOPs${outside[here] > FAR ? `, up to ${times(outside[here])} beyond the fitted runs` : ""}`;
    const write = this.shown === "gain" ? signed : loss;
    this.readings.firstChild.textContent = `${where}:`;
    this.lines.forEach(({ name, points }, k) => { this.readings.children[k + 1].lastChild.textContent = estimate(exact ? answer[name] : points[here], write); });
  }

  /** What the plan says on its budget, by way; nothing where it aims at a loss. */
  answered() {
    if (!this.plan || this.plan.budget === null) return {};
    const ways = Object.fromEntries(this.plan.distillations.map((way) => [way.name, way[this.shown]]));
    return { direct: this.plan.direct[0]?.loss, ...ways };
  }

  background(plot) {
    const { budgets, outside } = this.frontier, { top, height } = plot.bbox;
    for (let k = 0; k + 1 < budgets.length; k += 1) {
      const [from, to] = [k, k + 1].map((at) => plot.valToPos(budgets[at], "x", true));
      if (Math.max(outside[k], outside[k + 1]) > FAR) {
        plot.ctx.fillStyle = colour("shade");
        plot.ctx.fillRect(from, top, to - from, height);
      }
      if (Math.max(outside[k], outside[k + 1]) > 100) hatch(plot, from, top, to - from, height, colour("line"));
    }
  }

  /** A word in a right corner, on a ground of its own, so that no line crosses it. */
  word(ctx, text, right, top) {
    const scale = devicePixelRatio;
    ctx.save();
    ctx.font = `${12 * scale}px system-ui`;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    const width = ctx.measureText(text).width;
    ctx.globalAlpha = 0.85;
    ctx.fillStyle = colour("card");
    ctx.fillRect(right - width - 12 * scale, top + 2 * scale, width + 10 * scale, 18 * scale);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colour("soft");
    ctx.fillText(text, right - 7 * scale, top + 11 * scale);
    ctx.restore();
  }

  foreground(plot) {
    const { left, top, width, height } = plot.bbox, { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = colour("ink");
    ctx.lineWidth = devicePixelRatio;
    if (this.shown === "gain") {
      const zero = plot.valToPos(0, "y", true);
      ctx.beginPath();
      ctx.moveTo(left, zero);
      ctx.lineTo(left + width, zero);
      ctx.stroke();
    }
    const x = plot.valToPos(this.budget, "x", true);
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    ctx.restore();
    if (this.shown !== "gain") return;
    this.word(ctx, "↑ distilling is better", left + width, top);
    this.word(ctx, "↓ direct training is better", left + width, top + height - 22 * devicePixelRatio);
  }
}

const edge = () => ({ stroke: "transparent", width: 0, points: { show: false } });

function uPlotPoint(plot, k) {
  const dot = document.createElement("div");
  dot.className = "u-cursor-pt";
  const tone = plot.series[k].stroke(plot, k);
  Object.assign(dot.style, { width: "9px", height: "9px", marginLeft: "-4.5px", marginTop: "-4.5px", background: tone, borderColor: tone });
  return dot;
}

function padded(low, high, shown) {
  const [from, to] = shown === "gain" ? [Math.min(low, -0.005), Math.max(high, 0.005)] : [low, high], margin = 0.06 * (to - from || 0.1);
  return [from - margin, to + margin];
}

const nearest = (budgets, budget) => budgets.reduce((best, each, k) => (Math.abs(Math.log(each / budget)) < Math.abs(Math.log(budgets[best] / budget)) ? k : best), 0);
