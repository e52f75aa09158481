// Expected error and P(right decision) over what a sweep costs, beside factorial grids of the same runs.

import { Cursor } from "./cursor.js";
import { axis, colour, Figure } from "./figure.js";
import { power } from "./numbers.js";
import { element } from "./ways.js";

export const LINES = [["curve", "chosen for the question", "s1"], ["factorial", "factorial grid", "s2"]];
const SAID = { sd: [(point) => 100 * point.sd, "expected error at the question (%)"], probability: [(point) => point.probability, "P(right decision)"] };

export class Design {
  constructor(place, readings) {
    this.figure = new Figure(place, () => {});
    this.readings = readings;
    this.cursor = new Cursor(place, this.figure, () => this.costs && [this.costs, this.costs.length - 1], (at) => this.read(at));
  }

  /** Show a design; `shown` is sd or probability. */
  show(design, shown) {
    Object.assign(this, { design, shown });
    this.cursor.at = null;
    const points = LINES.map(([name]) => design[name].filter(({ flops }) => flops > 0));
    const costs = [...new Set(points.flat().map(({ flops }) => flops))].sort((one, other) => one - other);
    const [value, label] = SAID[shown], at = points.map((line) => new Map(line.map((point) => [point.flops, point])));
    this.costs = costs;
    this.at = at;
    const data = [costs, ...at.map((line) => costs.map((flops) => (line.has(flops) ? value(line.get(flops)) : undefined)))];
    const series = LINES.map(([, , hue], k) => ({ stroke: colour(hue), width: 2, dash: k ? [7, 4] : [], spanGaps: true, points: { show: true, size: 7, fill: colour(hue), stroke: colour(hue) } }));
    const ends = [costs[0] / 1.3, costs.at(-1) * 1.3], errors = data.slice(1).flat().filter((each) => each !== undefined);
    const y = shown === "sd" ? { range: () => [0, 1.08 * Math.max(...errors)] } : { range: () => [Math.min(0.5, ...errors), 1.01] };
    this.figure.draw({
      series: [{}, ...series],
      scales: { x: { distr: 3, range: () => ends, time: false }, y },
      axes: [axis("flops", "cost of the sweep (FLOPs)"), axis("linear", label)],
      cursor: { drag: { x: false, y: false } },
      hooks: { setCursor: [(plot) => this.read(plot.cursor.idx)] },
    }, data);
    this.read(null);
  }

  /** The readings at a cost, or at the largest that each line reaches. */
  read(index) {
    const cost = index === null || index === undefined ? Infinity : this.costs[index];
    this.readings.replaceChildren(...LINES.map(([, title, hue], k) => {
      const point = [...this.at[k].values()].filter(({ flops }) => flops <= cost).at(-1);
      const said = point ? `${power(point.flops)} FLOPs, ${point.runs} run${point.runs === 1 ? "" : "s"}: error ${(100 * point.sd).toPrecision(2)} %, P(right) ${point.probability.toFixed(2)}` : "none costs so little";
      return element("p", { className: "reading" }, element("i", { className: `dot ${hue}` }), element("b", { textContent: `${title} ` }), said);
    }));
  }
}
