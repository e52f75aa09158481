// Where distilling pays, over budget and student size: a map to point at, click in, and walk with the arrows.

import { axis, colour, Figure, hatch } from "./figure.js";
import { power, short, signed } from "./numbers.js";

const ENDS = [[198, 106, 27], [243, 239, 230], [43, 123, 181]]; // train directly, even, distil
const SURE_GAIN = 0.05; // nats/token that count as certain where there is no probability
const WHY = {
  unpaid: "no answer: the budget does not pay for a student of this size",
  far: "no answer: more than 100 times outside the fitted runs",
  "not credible": "no answer: the law promises a lower loss than unlimited data would give",
  "teacher too good": "no answer: the best teacher is better than any that the law was fitted to",
};

export class DecisionMap {
  constructor(place, reading, note, pick) {
    this.figure = new Figure(place, (budget, size) => this.take(budget, size));
    Object.assign(this, { reading, note });
    this.pick = pick;
    place.addEventListener("keydown", (event) => this.walk(event));
  }

  /** Show a map; the question's own place is marked, and `way` is the answer there. */
  show(map, budget, size, way) {
    Object.assign(this, { map, budget, size, way });
    const all = [...new Set(map.laws.flat())], missing = all.filter((law) => map.probability && !map.laws.every((heard) => heard.includes(law)));
    this.note.textContent = missing.length ? `Across the dashed lines other laws count (${missing.join(", ")} counts on one side only), so the colors jump.` : "";
    const { budgets, student_params: sizes } = map, ends = (values) => [values[0], values.at(-1)];
    this.figure.draw({
      series: [{}, { stroke: "transparent", points: { show: false } }],
      scales: { x: { distr: 3, range: () => ends(budgets), time: false }, y: { distr: 3, range: () => ends(sizes) } },
      axes: [axis("flops", "compute (FLOPs)"), axis("params", "student parameters")].map((each) => ({ ...each, grid: { show: false } })),
      cursor: { drag: { x: false, y: false }, points: { show: false } },
      hooks: { drawClear: [(plot) => this.cells(plot)], draw: [(plot) => this.marker(plot)], setCursor: [(plot) => this.hover(plot)] },
    }, [budgets, budgets.map(() => sizes[0])]);
    this.readHere();
  }

  /** How sure one is that distilling is better, from 0 to 1. */
  sure(row, column) {
    const { gain, probability } = this.map;
    return probability ? probability[row][column] : 0.5 + Math.max(-0.5, Math.min(0.5, gain[row][column] / (2 * SURE_GAIN)));
  }

  cells(plot) {
    const { budgets, student_params: sizes, answered, gain } = this.map;
    const x = edges(budgets).map((value) => plot.valToPos(value, "x", true)), y = edges(sizes).map((value) => plot.valToPos(value, "y", true));
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (let row = 0; row < sizes.length; row += 1) {
      for (let column = 0; column < budgets.length; column += 1) {
        const far = !answered[row][column] || gain[row][column] === null, box = [Math.floor(x[column]), Math.floor(y[row + 1]), Math.ceil(x[column + 1] - x[column]) + 1, Math.ceil(y[row] - y[row + 1]) + 1];
        ctx.fillStyle = far ? colour("paper") : shade(this.sure(row, column));
        ctx.fillRect(...box);
        if (far) hatch(plot, ...box, colour("field"));
      }
    }
    if (this.note.textContent) this.bounds(ctx, bbox, y);
    ctx.restore();
  }

  /** Lines between sizes for which different laws are heard. */
  bounds(ctx, bbox, y) {
    ctx.strokeStyle = "#1b1f24";
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    this.map.laws.forEach((laws, row) => {
      if (!row || String(laws) === String(this.map.laws[row - 1])) return;
      ctx.beginPath();
      ctx.moveTo(bbox.left, y[row]);
      ctx.lineTo(bbox.left + bbox.width, y[row]);
      ctx.stroke();
    });
  }

  marker(plot) {
    const { ctx, bbox } = plot, [x, y] = [plot.valToPos(this.budget, "x", true), plot.valToPos(this.size, "y", true)];
    if (x < bbox.left || x > bbox.left + bbox.width || y < bbox.top || y > bbox.top + bbox.height) return;
    for (const [tone, width] of [["#ffffff", 5], ["#1b1f24", 2.5]]) {
      ctx.strokeStyle = tone;
      ctx.lineWidth = width * devicePixelRatio;
      ctx.beginPath();
      ctx.arc(x, y, 7 * devicePixelRatio, 0, 2 * Math.PI);
      ctx.stroke();
    }
  }

  hover(plot) {
    const { left, top } = plot.cursor;
    if (left < 0) this.readHere();
    else this.read(plot.posToVal(left, "x"), plot.posToVal(top, "y"));
  }

  /** The answer's own reading at the question's place; on the way to a new place, that of the map. */
  readHere() {
    if (!this.way) return this.read(this.budget, this.size);
    const { verdict, gain, probability } = this.way;
    const said = verdict.startsWith("no answer") ? verdict : `${verdict}, ${reading(gain.value, probability)}`;
    this.reading.textContent = `${place(this.size, this.budget, 3)}: ${said}`;
  }

  read(budget, size) {
    const { budgets, student_params: sizes, gain, probability, why } = this.map;
    const column = closest(budgets, budget), row = closest(sizes, size);
    if (this.way && column === closest(budgets, this.budget) && row === closest(sizes, this.size)) return this.readHere();
    const said = WHY[why[row][column]] ?? reading(gain[row][column], probability?.[row][column] ?? null);
    this.reading.textContent = `${place(sizes[row], budgets[column], 2)}: ${said}`;
  }

  /** Ask about a place; the mark goes there at once, so that the next key starts from it. */
  take(budget, size) {
    Object.assign(this, { budget: Number(budget.toPrecision(2)), size: Number(size.toPrecision(2)), way: null });
    this.figure.drawn?.redraw(false);
    this.readHere();
    this.pick(this.budget, this.size);
  }

  walk(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!steps || !this.map) return;
    event.preventDefault();
    const step = 10 ** 0.1;
    this.take(this.budget * step ** steps[0], this.size * step ** steps[1]);
  }
}

const place = (size, budget, digits) => `${short(size, digits)} student, ${power(budget, digits)} FLOPs`;
const reading = (gain, chance) => `gain ${signed(gain)} nats/token${chance === null ? "" : `, P(distilling is better) = ${chance.toFixed(2)}`}`;

/** The boundaries of cells around values that are evenly spaced in the logarithm. */
function edges(values) {
  const half = Math.sqrt(values[1] / values[0]);
  return [values[0] / half, ...values.map((value) => value * half)];
}

function shade(sure) {
  const [from, to, part] = sure < 0.5 ? [ENDS[0], ENDS[1], 2 * sure] : [ENDS[1], ENDS[2], 2 * sure - 1];
  return `rgb(${from.map((tone, k) => Math.round(tone + part * (to[k] - tone))).join(" ")})`;
}

const closest = (values, value) => values.reduce((best, each, k) => (Math.abs(Math.log(each / value)) < Math.abs(Math.log(values[best] / value)) ? k : best), 0);
