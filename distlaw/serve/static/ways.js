// The answer: one line per way with its verdict and interval, then the table and the notes.

import { estimate, loss, power, short, signed } from "./numbers.js";

const SVG = "http://www.w3.org/2000/svg";
const SCENARIOS = {
  direct: ["s0", "direct training"],
  best_case: ["s1", "teacher and logits free"],
  teacher_inference: ["s2", "teacher exists, logits paid"],
  teacher_pretraining: ["s3", "teacher trained, logits free"],
  teacher_pretraining_and_inference: ["s4", "teacher trained, logits paid"],
};
const OTHER = "s5";
const BADGES = { distil: ["distil", "Distil"], "train directly": ["direct", "Train directly"], "too close to call": ["close", "Too close"] };

/** The colour of a way, by its name or by the scenario that its title ends with. */
export const hue = (name) => (SCENARIOS[name] ?? Object.values(SCENARIOS).find(([, words]) => name.endsWith(words)) ?? [OTHER])[0];
export const title = (name) => SCENARIOS[name]?.[1] ?? name;

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The lines of a plan: direct training, then every way to distil. */
export function ofPlan(answer) {
  const { direct, distillations } = answer.plan, titles = answer.table.rows.map((row) => row[0]);
  return [
    ...direct.map((way, k) => ({ name: "direct", title: direct.length > 1 ? `${short(way.params)} student: ${titles[k]}` : titles[k], small: `${short(way.params)} on ${short(way.tokens)} tokens`, loss: way.loss, lead: answer.plan.budget === null ? `${power(way.training_flops + way.serving_flops)} FLOPs` : "", note: "" })),
    ...distillations.map((way, k) => ({
      name: way.name,
      title: titles[direct.length + k],
      small: `${short(way.params)} on ${short(way.tokens)} tokens, from ${short(way.teacher_params)}${way.teacher_tokens ? ` on ${short(way.teacher_tokens)}` : ""}`,
      verdict: way.verdict,
      probability: way.probability,
      loss: way.loss,
      lead: answer.plan.budget === null ? `${power(way.flops)} FLOPs` : "",
      note: answer.plan.budget === null || way.verdict.startsWith("no answer") ? "" : `gain ${signed(way.gain.value)} nats`,
    })),
  ];
}

/** A family as a table: a row a way, a column a student, the gain with its verdict and probability in the cells. */
export function drawFamily(place, { plan, table }) {
  const { direct, distillations } = plan, titles = table.rows.slice(direct.length).map(([name]) => name), ways = new Map();
  distillations.forEach((way, k) => {
    const [, name] = /^.*? student: (.*)$/.exec(titles[k]) ?? ["", titles[k]];
    ways.set(name, [...(ways.get(name) ?? []), way]);
  });
  const cell = (way) => {
    const [tone, text] = BADGES[way.verdict] ?? ["close", "No answer"], chance = way.probability == null ? "" : ` · ${way.probability.toFixed(2)}`;
    const badge = element("span", { className: `badge ${tone}`, textContent: `${signed(way.gain.value)}${chance}`, title: `${text}: ${estimate(way.loss)} nats/token` });
    return element("td", {}, badge, element("small", { textContent: text }));
  };
  const row = (tone, name, cells) => element("tr", {}, element("th", { scope: "row" }, element("i", { className: `dot ${tone}` }), name), ...cells);
  const head = element("tr", {}, element("th", { scope: "col", textContent: "gain, nats · P" }), ...direct.map((way) => element("th", { scope: "col", textContent: `${short(way.params)} student` })));
  const alone = row("s0", "direct training, loss", direct.map((way) => element("td", { textContent: loss(way.loss.value), title: estimate(way.loss) })));
  const body = element("tbody", {}, alone, ...[...ways].map(([name, each]) => row(hue(name), name, each.map(cell))));
  const drawn = element("table", { className: "family" }, element("thead", {}, head), body);
  place.replaceChildren(element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Gain of every student by way" }, drawn));
}

/** The lines of a prediction. */
export function ofPrediction(answer) {
  const said = { supervised: "the student alone", teacher: "the teacher" };
  return Object.entries(answer.prediction.losses).map(([name, each]) => ({ name: name === "supervised" ? "direct" : name, title: said[name] ?? `distilled, ${name} law`, small: "", loss: each, note: "" }));
}

/** Draw lines on one common axis of losses. */
export function drawWays(place, ways) {
  const ends = ways.flatMap((way) => [way.loss.low ?? way.loss.value, way.loss.high ?? way.loss.value]);
  const [low, high] = [Math.min(...ends), Math.max(...ends)], margin = 0.04 * (high - low || 0.1);
  const at = (value) => (100 * (value - low + margin)) / (high - low + 2 * margin);
  place.replaceChildren(...ways.map((way) => {
    const [tone, text] = BADGES[way.verdict] ?? ["close", "No answer"];
    const badge = element("span", { className: `badge ${tone}`, textContent: way.probability == null ? text : `${text} · ${way.probability.toFixed(2)}` });
    if (way.probability != null) badge.title = "the probability that distilling is better";
    const name = element("div", { className: "name" }, element("i", { className: `dot ${hue(way.name)}` }), way.title, element("small", { textContent: way.small }));
    const band = way.loss.low === null ? "" : `${loss(way.loss.low)} to ${loss(way.loss.high)}`;
    const value = element("div", { className: "value" }, element("b", { textContent: way.lead || loss(way.loss.value) }), element("small", { textContent: way.note || band }));
    value.title = estimate(way.loss);
    return element("div", { className: "way" }, name, way.verdict ? badge : element("span"), picture(way, at), value);
  }));
}

/** A dot on its interval; decoration, as the numbers stand beside it. */
function picture(way, at) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", hue(way.name));
  const line = (x1, x2, width, opacity, kind) => draw("line", { x1: `${x1}%`, x2: `${x2}%`, y1: 13, y2: 13, "stroke-width": width, opacity, class: kind });
  const draw = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries({ stroke: "var(--hue)", ...attributes })) made.setAttribute(key, value);
    svg.append(made);
  };
  line(0, 100, 1, 0.18, "");
  if (way.loss.low !== null) line(at(way.loss.low), at(way.loss.high), 7, 0.35, "span");
  draw("circle", { cx: `${at(way.loss.value)}%`, cy: 13, r: 5.5, fill: "var(--hue)", stroke: "var(--card)", "stroke-width": 1.5 });
  return svg;
}

/** One sentence a line, what it comes down to in bold; left alone where nothing is new, as it is read aloud. */
export function drawVerdict(place, headline) {
  if (place.dataset.said === headline) return;
  place.dataset.said = headline;
  place.replaceChildren(...headline.split(/(?<=\.) (?=[A-Za-z])/).map((sentence) => {
    const [, lead, rest] = /^(.*?)((?: \(|:|\.$).*)$/.exec(sentence) ?? ["", "", sentence];
    const strong = lead.length < 48 && !lead.startsWith("Extrapolated");
    return element("span", {}, ...(strong ? [element("b", { textContent: lead }), rest] : [sentence]), " ");
  }));
}

export function drawTable(table, { header, rows }) {
  const head = element("tr", {}, ...header.map((cell) => element("th", { scope: "col", textContent: cell })));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, k) => element(k ? "td" : "th", { textContent: cell, ...(k ? {} : { scope: "row" }) }))));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

/** Warnings go with the verdict, what was assumed with the table. */
export function drawNotes(cautions, assumptions, notes) {
  const item = (note) => element("li", { className: note.startsWith("!") ? "warning" : "", textContent: note.slice(1).trim() });
  cautions.replaceChildren(...notes.filter((note) => note.startsWith("!")).map(item));
  assumptions.replaceChildren(...notes.filter((note) => !note.startsWith("!")).map(item));
}
