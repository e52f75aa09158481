// From the form to the answer: quick points while something moves, intervals, curves and map when it rests.

import { Curves, FAR } from "./curves.js";
import { Design, LINES } from "./design.js";
import { press, touch } from "./figure.js";
import { DecisionMap } from "./map.js";
import { power, short } from "./numbers.js";
import * as question from "./question.js";
import { csv, download, picture } from "./save.js";
import { drawFamily, drawNotes, drawTable, drawVerdict, drawWays, element, hue, ofPlan, ofPrediction, title } from "./ways.js";

const REST = 350; // milliseconds without a change before the long questions are asked
const LARGEST_UPLOAD = 2e6;
const TOO_FAR = 100; // times outside the fitted runs, beyond which there is no verdict
const BUDGETS = document.getElementById("budget-note").textContent;
const find = (id) => document.getElementById(id);
const latest = new Map(); // by kind of request: what cancels it
const asked = {}; // by kind of request: its text, so that nothing is asked twice
const state = { answer: null, curves: null, map: null, calibrations: [], resting: 0 };
const curves = new Curves(find("curves"), find("readings"), (budget) => set({ budget: Number(budget.toPrecision(2)) }));
const design = new Design(find("design"), find("design-readings"));
const map = new DecisionMap(find("map"), find("map-reading"), find("map-note"), (budget, size) => set({ budget, student: size }));

/** Ask the server; the newest request of a kind cancels the one before. */
async function post(kind, path, body) {
  latest.get(kind)?.abort();
  const cancel = new AbortController();
  latest.set(kind, cancel);
  find("progress").hidden = false;
  try {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: cancel.signal });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.detail);
    return content;
  } finally {
    if (latest.get(kind) === cancel) latest.delete(kind);
    find("progress").hidden = !latest.size;
  }
}

function changed() {
  question.tidy();
  history.replaceState(null, "", `#${question.link()}`);
  clearTimeout(state.resting);
  latest.get("answer")?.abort();
  state.settled = false;
  state.resting = setTimeout(settle, REST);
  laws();
  attempt(follow);
}

/** Points of the newest question, one request at a time however fast a slider moves. */
async function follow() {
  state.behind = state.following;
  if (state.following) return;
  const { kind, ask, body } = question.request();
  if (kind !== "plan" || ask === "family") return;
  const { tolerance, ...rest } = body;
  state.following = true;
  try {
    const points = await post("points", "plan", { ...rest, uncertainty: false });
    if (state.settled) return; // the full answer is on its way, or there
    drawWays(find("ways"), ofPlan(points));
    find("answer").classList.add("provisional");
  } finally {
    state.following = false;
    if (state.behind && !state.settled) attempt(follow);
  }
}

/** The full answer, then what is drawn around it. */
function settle() {
  attempt(async () => {
    const { kind, ask, body } = question.request();
    state.settled = true;
    latest.get("points")?.abort();
    const answer = await post("answer", kind, body);
    state.answer = { kind, ask, body, ...answer };
    show(state.answer);
    find("design-card").hidden = kind !== "design";
    if (kind === "plan" && ["plan", "target"].includes(ask)) return surround(answer, body);
    clearFigures();
    if (kind === "design") await drawn("design", drawDesign);
  });
}

/** Do the work and say what went wrong; the answer is greyed where it is no longer that of the question. */
async function attempt(work, { stale = true } = {}) {
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") complain(reason(error), stale);
  }
}

const reason = (error) => (error instanceof TypeError ? `the server does not answer (${error.message})` : error.message);

function complain(sentence, stale = true) {
  find("problem").hidden = !sentence;
  find("problem").textContent = sentence ?? "";
  find("answer").classList.toggle("failed", Boolean(sentence) && stale);
  for (const card of ["table-card", "keep-card"]) find(card).hidden = !state.answer || (Boolean(sentence) && stale);
  if (sentence && !state.answer) find("asked").textContent = "There is no answer to this question yet; the reason:";
  question.mark(sentence);
}

/** Draw one figure; what goes wrong stands in its own card, as the answer does not depend on it. */
async function drawn(name, work) {
  let sentence = "";
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    sentence = `This figure cannot be drawn here: ${reason(error)}.`.replace(/\.\.$/, ".");
    state[name] = null;
    find(`${name}-card`).hidden = false;
  }
  find(`${name}-card`).classList.toggle("empty", Boolean(sentence));
  find(`${name}-problem`).textContent = sentence;
}

/** The budget of an answer in FLOPs, hours and dollars, where a device counts it. */
function spent({ spending, notes }) {
  return spending && notes.find((note) => note.startsWith("- budget: "))?.replace("- budget: ", "= ");
}

function show(answer) {
  complain(null);
  const { kind } = answer;
  find("asked").textContent = kind === "compare" ? `Every law: ${answer.asked}` : answer.asked;
  find("budget-note").textContent = spent(answer) ?? BUDGETS;
  if (kind === "plan" && answer.plan.budget) question.slide("budget", answer.plan.budget);
  drawVerdict(find("verdict"), answer.headline);
  const ways = kind === "plan" ? ofPlan(answer) : kind === "predict" ? ofPrediction(answer) : [];
  if (answer.ask === "family") drawFamily(find("ways"), answer);
  else drawWays(find("ways"), ways);
  find("answer").classList.remove("provisional");
  drawHint(answer);
  drawTable(find("table"), answer.table);
  drawNotes(find("cautions"), find("assumptions"), answer.notes);
  find("table-card").hidden = find("keep-card").hidden = false;
  for (const part of ["command", "python"]) find(part).textContent = answer.equivalent[part].trim();
  const files = [/calibration\.json/.test(answer.equivalent.command) && "calibration.json is the file that you uploaded", /teachers\.csv/.test(answer.equivalent.command) && "teachers.csv is the table that you pasted"].filter(Boolean);
  find("files-note").textContent = files.length ? `${files.join("; ")}.` : "";
}

/** The curves over compute, and the map, around a plan on a budget or towards a target. */
async function surround(answer, body) {
  const way = answer.plan.distillations[0] ?? answer.plan.direct[0];
  if (!way) return clearFigures();
  const { device, tolerance, store_logits, budget: _, target_loss: __, ...described } = body;
  const around = answer.plan.budget ?? way.flops ?? way.training_flops;
  await Promise.all([drawn("curves", () => curvesAround(described, around)), drawn("map", () => mapAround(described, answer))]);
}

/** Where the runs behind the calibration lie, if the question lies too far away for an answer. */
function drawHint({ kind, body, plan }) {
  const hint = find("hint"), chosen = state.calibrations.find((each) => (each.key ?? each.name) === question.form.elements.calibration.value);
  const ways = kind === "plan" ? (plan.distillations.length ? plan.distillations : plan.direct) : [];
  const far = ways.length && ways.every((way) => (way.verdict ? way.verdict.startsWith("no answer, too far") : Math.max(...Object.values(way.outside)) > TOO_FAR));
  const { region = {}, budgets } = chosen ?? {}, students = region.student_params ?? region.params, tokens = region.student_tokens ?? region.tokens;
  hint.hidden = !(far && students && tokens && budgets);
  if (hint.hidden) return;
  const between = ([low, high], write = short) => `${write(low)} to ${write(high)}`;
  const ask = element("button", { type: "button", className: "quiet-button", textContent: "Ask in the middle of them" });
  ask.addEventListener("click", () => set({ student: Math.sqrt(students[0] * students[1]), budget: Math.sqrt(budgets[0] * budgets[1]) }));
  const words = `The runs behind this calibration are students of ${between(students)} parameters on ${between(tokens)} tokens, which take ${between(budgets, (value) => power(value, 2))} FLOPs. `;
  hint.replaceChildren(words, ask);
}

async function curvesAround(described, budget) {
  const middle = Math.round(Math.log10(budget) * 2) / 2;
  const body = { ...described, budgets: [10 ** (middle - 1.5), 10 ** (middle + 1.5)], points: 31 };
  if (!state.curves || asked.curves !== JSON.stringify(body)) {
    state.curves = await post("frontier", "frontier", body);
    asked.curves = JSON.stringify(body);
  }
  Object.assign(state, { budget });
  find("curves-card").hidden = false;
  find("curves-card").classList.remove("empty"); // before drawing, which measures the place
  const left = state.curves.frontier.warnings.filter((warning) => warning.startsWith("left out"));
  find("findings").replaceChildren(...[...state.curves.findings, ...left].map((textContent) => element("li", { textContent })));
  drawCurves();
}

function drawCurves() {
  const { frontier } = state.curves, student = state.answer.body.student_params, compared = Object.keys(frontier.tracks).length > 0;
  find("shown").hidden = !compared;
  const shown = compared ? document.querySelector("[name=shown]:checked").value : "loss";
  const far = frontier.outside.some((factor) => factor > FAR) ? " Shaded where a way lies beyond the fitted runs, hatched where it is too far for an answer." : "";
  find("curves-note").textContent = `${student ? `${student} student` : "Students of the best size"}; bands hold 90 % of single runs.${far} ${press} to change the budget.`;
  curves.show(frontier, shown, state.budget, state.answer.plan);
}

async function mapAround(described, answer) {
  const names = answer.plan.distillations.map((way) => [way.name, title(way.name)]);
  if (!names.length) return void (find("map-card").hidden = true);
  const select = find("map-scenario"), chosen = select.value;
  if (String([...select.options].map((each) => each.value)) !== String(names.map(([name]) => name))) {
    select.replaceChildren(...names.map(([name, text]) => new Option(text, name)));
  }
  select.value = names.some(([name]) => name === chosen) ? chosen : (names[1] ?? names[0])[0];
  const way = answer.plan.distillations.find(({ name }) => name === select.value), budget = answer.plan.budget ?? way.flops, size = way.params;
  const around = (value, reach) => [10 ** (Math.round(Math.log10(value) * 2) / 2 - reach), 10 ** (Math.round(Math.log10(value) * 2) / 2 + reach)];
  const { student_params: _, scenarios: __, constraints, ...rest } = described;
  const { student_params: ___, ...bounds } = constraints ?? {};
  const body = { ...rest, constraints: bounds, scenarios: [select.value], budgets: around(budget, 2), students: around(size, 1.5) };
  if (!state.map || asked.map !== JSON.stringify(body)) {
    state.map = await post("map", "map", body);
    asked.map = JSON.stringify(body);
  }
  Object.assign(state, { place: [budget, size, way] });
  find("map-card").hidden = false;
  find("map-card").classList.remove("empty");
  map.show(state.map, ...state.place);
}

function drawDesign() {
  find("design-card").classList.remove("empty"); // before drawing, which measures the place
  design.show(state.answer.design, document.querySelector("[name=design_shown]:checked").value);
}

function clearFigures() {
  find("curves-card").hidden = find("map-card").hidden = true;
  state.curves = state.map = null;
}

/** Put values into the form; a size that is pointed at is no longer searched for. */
function set(values) {
  if (values.student) question.form.elements.best.checked = false;
  if (question.form.elements.ask.value === "target") question.form.elements.ask.value = "plan";
  for (const [name, value] of Object.entries(values)) question.put(name, value);
  changed();
}

/** Offer the laws of the calibration that is chosen. */
function laws() {
  const key = question.form.elements.calibration.value;
  if (state.lawsOf === key) return;
  const chosen = state.calibrations.find((each) => (each.key ?? each.name) === key);
  state.lawsOf = key;
  question.offerLaws(chosen?.laws ?? [], chosen?.default);
  question.reach(chosen);
}

async function upload(file) {
  if (file.size > LARGEST_UPLOAD) throw new Error(`calibration: ${file.name} holds ${file.size.toLocaleString("en")} bytes; at most ${LARGEST_UPLOAD.toLocaleString("en")} are taken`);
  const text = await file.text();
  let content;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new Error(`calibration: ${file.name} is not JSON: ${error.message}`);
  }
  if (content === null || typeof content !== "object" || Array.isArray(content)) throw new Error(`calibration: ${file.name} holds no calibration`);
  const summary = await post("upload", "calibrations/check", content);
  const hash = [...new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const key = `upload:${summary.name.replaceAll(":", " ")}:${hash.slice(0, 12)}`;
  state.calibrations = [...state.calibrations.filter((each) => each.key !== key), { ...summary, key }];
  question.offer(key, summary.name, content);
  state.lawsOf = null;
  changed();
}

function keep() {
  const name = () => `distlaw-${state.answer.kind}`;
  const said = (text) => { find("kept").textContent = text; };
  const click = (id, work) => find(id).addEventListener("click", () => (state.answer ? work() : said("Nothing to save yet: the first answer is still being computed.")));
  click("save-json", () => { const { kind, ask, body, ...answer } = state.answer; download(`${name()}.json`, `${JSON.stringify({ question: body, answer }, null, 1)}\n`, "application/json"); });
  click("save-csv", () => download(`${name()}.csv`, csv(state.answer.rows), "text/csv"));
  click("save-curves", () => (state.curves ? download("distlaw-curves.csv", csv(state.curves.rows), "text/csv") : said("There are no curves to save for this question.")));
  click("save-png", () => {
    const plots = [...document.querySelectorAll(".card:not([hidden]) .plot canvas")];
    if (!plots.length) return said("There are no figures to save for this question.");
    if (state.answer.kind === "design") return picture(state.answer.headline, state.answer.asked, plots, LINES.map(([, words, tone]) => [words, tone]), (blob) => download("distlaw.png", blob, "image/png"));
    const legend = curves.lines.map(({ name: way }) => [title(way), hue(way)]);
    if (!find("map-card").hidden) legend.push([`map, ${title(find("map-scenario").value)}: blue distil, orange train directly, hatched no answer`, "soft"]);
    return picture(state.answer.headline, state.answer.asked, plots, legend, (blob) => download("distlaw.png", blob, "image/png"));
  });
  find("share").addEventListener("click", () => copy(location.href, "The link holds the whole question" + (location.hash.includes("upload") ? "; your calibration is not in it: send that file along." : ".")));
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(find(button.dataset.copy).textContent, "Copied."));
  const copy = async (text, done) => {
    try {
      await navigator.clipboard.writeText(text);
      said(done);
    } catch {
      said(`Copy it from here: ${text}`);
    }
  };
}

async function start() {
  const [calibrations, devices, models] = await Promise.all(["calibrations", "hardware", "teachers"].map(async (path) => (await fetch(path)).json()));
  state.calibrations = calibrations;
  question.offerModels(models, changed);
  for (const word of document.querySelectorAll(".press")) word.textContent = press;
  for (const word of document.querySelectorAll(".point")) word.textContent = touch ? "tap" : "point at";
  question.prepare(calibrations, devices, changed);
  laws();
  keep();
  find("upload").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) attempt(() => upload(file), { stale: false });
  });
  find("map-scenario").addEventListener("change", settle);
  for (const radio of document.querySelectorAll("[name=shown]")) radio.addEventListener("change", drawCurves);
  for (const radio of document.querySelectorAll("[name=design_shown]")) radio.addEventListener("change", drawDesign);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (state.curves) drawCurves();
    if (state.map) map.show(state.map, ...state.place);
    if (state.answer?.kind === "design") drawDesign();
  });
  question.tidy();
  settle();
}

attempt(start);
