// Where distilling pays, over budget and student size: a map to point at, click in, and walk with the arrows.

import { axis, colour, Figure, hatch } from "./figure.js";
import { power, short, signed } from "./numbers.js";

const ENDS = [[198, 106, 27], [243, 239, 230], [43, 123, 181]]; // train directly, even, distil
const SURE_GAIN = 0.05; // nats/token that count as certain where there is no probability

export class DecisionMap {
  constructor(place, reading, note, pick) {
    this.figure = new Figure(place, (budget, size) => this.take(budget, size));
    Object.assign(this, { reading, note });
    this.pick = pick;
    place.addEventListener("keydown", (event) => this.walk(event));
  }

  /** Show a map; the question's own place is marked. */
  show(map, budget, size) {
    Object.assign(this, { map, budget, size });
    const all = [...new Set(map.laws.flat())], missing = all.filter((law) => map.probability && !map.laws.every((heard) => heard.includes(law)));
    this.note.textContent = missing.length ? `Beyond the dashed lines the ${missing.join(", ")} law knows no students: probabilities there rest on the other law alone, so the colours jump.` : "";
    const { budgets, student_params: sizes } = map, ends = (values) => [values[0], values.at(-1)];
    this.figure.draw({
      series: [{}, { stroke: "transparent", points: { show: false } }],
      scales: { x: { distr: 3, range: () => ends(budgets), time: false }, y: { distr: 3, range: () => ends(sizes) } },
      axes: [axis("flops", "compute (FLOPs)"), axis("params", "student parameters")].map((each) => ({ ...each, grid: { show: false } })),
      cursor: { drag: { x: false, y: false }, points: { show: false } },
      hooks: { drawClear: [(plot) => this.cells(plot)], draw: [(plot) => this.marker(plot)], setCursor: [(plot) => this.hover(plot)] },
    }, [budgets, budgets.map(() => sizes[0])]);
    this.read(budget, size);
  }

  /** How sure one is that distilling is better, from 0 to 1. */
  sure(row, column) {
    const { gain, probability } = this.map;
    return probability ? probability[row][column] : 0.5 + Math.max(-0.5, Math.min(0.5, gain[row][column] / (2 * SURE_GAIN)));
  }

  cells(plot) {
    const { budgets, student_params: sizes, answered } = this.map;
    const x = edges(budgets).map((value) => plot.valToPos(value, "x", true)), y = edges(sizes).map((value) => plot.valToPos(value, "y", true));
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (let row = 0; row < sizes.length; row += 1) {
      for (let column = 0; column < budgets.length; column += 1) {
        const far = !answered[row][column], box = [Math.floor(x[column]), Math.floor(y[row + 1]), Math.ceil(x[column + 1] - x[column]) + 1, Math.ceil(y[row] - y[row + 1]) + 1];
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
    const { ctx } = plot, [x, y] = [plot.valToPos(this.budget, "x", true), plot.valToPos(this.size, "y", true)];
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
    if (left < 0) this.read(this.budget, this.size);
    else this.read(plot.posToVal(left, "x"), plot.posToVal(top, "y"));
  }

  read(budget, size) {
    const { budgets, student_params: sizes, gain, probability, answered } = this.map;
    const column = closest(budgets, budget), row = closest(sizes, size);
    const chance = probability ? `, P(distilling is better) = ${probability[row][column].toFixed(2)}` : "";
    const said = !answered[row][column] ? "no answer: too far outside the fitted runs, or a loss that is not credible" : `gain ${signed(gain[row][column])} nats/token${chance}`;
    this.reading.textContent = `${short(sizes[row], 2)} student, ${power(budgets[column], 2)} FLOPs: ${said}`;
  }

  take(budget, size) {
    this.pick(Number(budget.toPrecision(2)), Number(size.toPrecision(2)));
  }

  walk(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!steps || !this.map) return;
    event.preventDefault();
    const step = 10 ** 0.1;
    this.take(this.budget * step ** steps[0], this.size * step ** steps[1]);
  }
}

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
