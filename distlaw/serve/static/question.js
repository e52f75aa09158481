// The form: its fields and sliders, the link that holds them, and the requests they make.

import { read, short, power } from "./numbers.js";

export const form = document.querySelector("#question");
export const uploads = new Map(); // by the key that stands for them in the form: {name, content}
const BOUNDED = ["student_params", "student_tokens", "teacher_params", "teacher_tokens", "teacher_loss"];
const FOR_SERVER = { unique: "student_unique_tokens", teacher_unique: "teacher_unique_tokens", lifetime: "lifetime_tokens", rule: "flops_rule", context: "context", vocab: "vocab", aspect: "aspect_ratio", law: "law", store: "store_logits" };
let defaults = "";

/** Build the parts that follow from data, remember the defaults, and read the link. */
export function prepare(calibrations, devices, changed) {
  for (const name of BOUNDED) addBound(name);
  fill(form.elements.calibration, calibrations.map((each) => [each.name, each.name]));
  for (const { name } of calibrations) addAgainst(name, name);
  for (const { name } of calibrations) form.elements.prior.add(new Option(name, name));
  for (const name of new Set(devices.map((each) => each.name))) form.elements.gpu.add(new Option(name, name));
  form.querySelectorAll("[data-low]").forEach(addSlider);
  choose(form.elements.calibration, "busbridge2025-figure1-runs");
  for (const option of form.elements.calibration.options) option.defaultSelected = option.selected;
  defaults = new URLSearchParams(entries());
  open(location.hash.slice(1));
  form.addEventListener("input", (event) => { if (event.target.name) changed(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { tidy(); changed(); }));
  addEventListener("hashchange", () => { if (location.hash.slice(1) !== link()) { open(location.hash.slice(1)); changed(); } });
}

/** The fields as pairs, several values of one name joined. */
function entries() {
  const found = {};
  for (const field of form.elements) {
    if (!field.name) continue;
    const many = field.type === "checkbox";
    if (many) found[field.name] ??= "";
    if ((many || field.type === "radio") && !field.checked) continue;
    found[field.name] = many && found[field.name] ? `${found[field.name]};${field.value}` : field.value;
  }
  return found;
}

/** What differs from the defaults, as the part of the link after #. */
export function link() {
  const state = entries();
  return new URLSearchParams(Object.entries(state).filter(([name, value]) => value !== (defaults.get(name) ?? ""))).toString();
}

/** Set every field from such a text, the others to their defaults. */
function open(text) {
  const asked = new URLSearchParams(text);
  for (const field of form.elements) {
    if (!field.name) continue;
    const value = asked.get(field.name) ?? defaults.get(field.name) ?? "";
    if (field.type === "checkbox") field.checked = value.split(";").includes(field.value);
    else if (field.type === "radio") field.checked = field.value === value;
    else if (["calibration", "prior"].includes(field.name)) choose(field, value);
    else field.value = value;
  }
  tidy();
}

/** Choose an option, adding one that stands for a file which this browser has not been given. */
function choose(select, value) {
  if (value && ![...select.options].some((option) => option.value === value)) {
    select.add(new Option(`${value.split(":")[1] ?? value} (not uploaded here)`, value));
  }
  select.value = value;
}

/** An uploaded calibration among the choices. */
export function offer(key, name, content) {
  uploads.set(key, { name, content });
  const select = form.elements.calibration;
  [...select.options].find((option) => option.value === key)?.remove();
  select.add(new Option(`${name} (yours)`, key));
  select.value = key;
  form.elements.prior.add(new Option(`${name} (yours)`, key));
  if (!form.querySelector(`#against [value="${CSS.escape(key)}"]`)) addAgainst(key, `${name} (yours)`);
}

/** The laws of the chosen calibration. */
export function offerLaws(laws, preferred) {
  const select = form.elements.law, chosen = select.value || new URLSearchParams(location.hash.slice(1)).get("law");
  fill(select, [["", laws.length ? `default (${preferred})` : "supervised only"], ...laws.map((law) => [law, law])]);
  select.value = laws.includes(chosen) ? chosen : "";
}

/** Show the fields of this kind of question, and let the sliders follow the fields. */
export function tidy() {
  const state = entries();
  for (const part of form.querySelectorAll("[data-for]")) {
    const [name, value] = (part.dataset.when ?? "ask=").split("=");
    part.hidden = !part.dataset.for.split(" ").includes(state.ask) || (value !== "" && state[name] !== value);
  }
  const student = form.elements.student;
  student.disabled = student.slider.disabled = Boolean(state.best) && ["plan", "target", "teachers"].includes(state.ask);
  form.querySelectorAll("[data-low]").forEach(follow);
}

/** Put a value into a field, as if it had been typed. */
export function put(name, value) {
  form.elements[name].value = name === "budget" ? power(value, 3) : short(value);
  follow(form.elements[name]);
}

/** Let a slider stand where the server read its field, which holds more than a number can say. */
export function slide(name, value) {
  const { slider } = form.elements[name];
  if (document.activeElement === slider || Number.isFinite(read(form.elements[name].value))) return;
  const at = Math.log10(value);
  slider.min = Math.min(slider.min, at);
  slider.max = Math.max(slider.max, at);
  slider.value = at;
}

/** Offer open models, each of which becomes a row of the teachers; the server knows their numbers. */
export function offerModels(models, changed) {
  const field = document.querySelector("#open_model"), note = document.querySelector("#model-note"), { catalogue } = form.elements;
  const said = ({ params, active_params: active, tokens }) => `${short(params)}${active ? ` (${short(active)} active)` : ""}${tokens ? ` on ${short(tokens)} tokens` : ", tokens not published"}`;
  document.querySelector("#open_models").replaceChildren(...models.map((each) => new Option(said(each), each.name)));
  const add = () => {
    const wanted = field.value.trim().toLowerCase();
    const near = models.filter(({ name }) => name.toLowerCase().includes(wanted)), model = near.find(({ name }) => name.toLowerCase() === wanted) ?? (near.length === 1 ? near[0] : null);
    if (!wanted) return;
    if (!model) {
      note.textContent = near.length ? `${near.length} models match: ${near.slice(0, 4).map(({ name }) => name).join(", ")}${near.length > 4 ? ", …" : ""}` : "No such open model; give its row in the table above.";
      return;
    }
    if (!model.tokens) {
      note.textContent = `${model.name}: ${said(model)}; give its row with a loss or tokens above.`;
      return;
    }
    const columns = catalogue.value.split("\n")[0].split(/[,\t]/), separator = catalogue.value.split("\n")[0].includes("\t") ? "\t" : ",";
    const cells = columns.map((column) => (column.trim().toLowerCase() === "name" ? model.name : ""));
    catalogue.value = `${catalogue.value.trimEnd()}\n${cells.join(separator)}\n`;
    note.textContent = `Added ${model.name}: ${said(model)}, vocabulary ${model.vocab.toLocaleString("en")}. A student of that vocabulary is asked for under Hardware and FLOP counting.`;
    field.value = "";
    changed();
  };
  document.querySelector("#add_model").addEventListener("click", add);
  field.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); add(); } });
}

/** The kind of question and the request that asks it. */
export function request() {
  const state = entries();
  const scenarios = state.scenario ? state.scenario.split(";") : [];
  if (state.shares && ["plan", "target", "family"].includes(state.ask)) scenarios.push(`amortised:${state.shares.replaceAll(" ", "")}`);
  if (state.ask === "design") return { kind: "design", body: designed(state, scenarios) };
  if (state.ask === "predict") return { kind: "predict", body: predicted(state) };
  if (state.ask === "compare") {
    const boxes = [...form.querySelectorAll("[name=against]")], all = boxes.every((box) => box.checked && !box.value.startsWith("upload:"));
    const calibrations = all ? [] : state.against.split(";").filter(Boolean).map(calibration); // all: those that are near
    return { kind: "compare", body: { student_params: state.student, budget: state.budget, scenarios, calibrations } };
  }
  const body = { calibration: calibration(state.calibration), scenarios };
  for (const [name, field] of Object.entries(FOR_SERVER)) if (state[name]) body[field] = state[name];
  if (state.extrapolate && state.ask !== "teachers") body.extrapolate = true;
  const constraints = Object.fromEntries(BOUNDED.map((name) => [name, [state[`${name}_low`] || null, state[`${name}_high`] || null]]).filter(([, sides]) => sides[0] || sides[1]));
  if (Object.keys(constraints).length) body.constraints = constraints;
  if (state.ask !== "family" && !state.best) body.student_params = state.student;
  if (state.ask === "family") Object.assign(body, { family: state.family, weights: state.weights });
  if (state.ask === "family") delete body.lifetime_tokens;
  if (state.ask === "teachers") Object.assign(body, { teachers: state.catalogue, scenarios: [state.logits] });
  if (state.ask === "plan" && state.tolerance) body.tolerance = state.tolerance;
  body[state.ask === "target" ? "target_loss" : "budget"] = state.ask === "target" ? state.target : state.budget;
  if (state.gpu) body.device = Object.fromEntries(Object.entries({ name: state.gpu, count: state.count, utilisation: state.mfu, dollars_per_hour: state.price, precision: state.precision, peak_flops: state.peak }).filter(([, value]) => value));
  return { kind: "plan", ask: state.ask, body };
}

function predicted(state) {
  const body = { calibration: calibration(state.calibration), student_params: state.student, student_tokens: state.tokens };
  if (state.teacher === "loss") body.teacher_loss = state.teacher_loss;
  if (state.teacher === "size") Object.assign(body, { teacher_params: state.teacher_params, teacher_tokens: state.teacher_tokens });
  return body;
}

function designed(state, scenarios) {
  const body = { student_params: state.student, budget: state.budget, spend: state.spend, scenarios };
  if (state.prior) body.prior = calibration(state.prior);
  for (const name of ["context", "vocab", "aspect"]) if (state[name]) body[FOR_SERVER[name]] = state[name];
  return body;
}

/** What is sent for a choice: a name, or the content of an upload. */
function calibration(key) {
  if (!key.startsWith("upload:")) return key;
  const [, name, print] = key.split(":");
  if (!uploads.has(key)) throw new Error(`calibration: this link was made with the file ${name} (SHA-256 ${print} …); upload that file to see its answer`);
  return uploads.get(key).content;
}

/** Mark the field that a sentence of the server names. */
export function mark(sentence) {
  for (const field of form.elements) field.removeAttribute?.("aria-invalid");
  const named = /^(?:constraint on )?([\w.]+)/.exec(sentence ?? "")?.[1]?.replace(/\.\d+$/, "");
  const wrong = [...form.querySelectorAll("[data-field]")].find((field) => field.dataset.field.split(" ").includes(named) && field.offsetParent);
  wrong?.setAttribute("aria-invalid", "true");
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

function addAgainst(value, text) {
  const label = document.createElement("label"), box = Object.assign(document.createElement("input"), { type: "checkbox", name: "against", value, checked: true, defaultChecked: true });
  label.className = "check";
  label.append(box, ` ${text}`);
  form.querySelector("#against").append(label);
}

function addBound(name) {
  const words = name.replace("_", " "), title = Object.assign(document.createElement("span"), { textContent: words });
  const sides = ["low", "high"].map((side) => {
    const input = Object.assign(document.createElement("input"), { name: `${name}_${side}`, placeholder: side === "low" ? "from" : "to" });
    input.setAttribute("aria-label", `${words}, ${side === "low" ? "smallest" : "largest"}`);
    input.dataset.field = name;
    return input;
  });
  form.querySelector(".bounds").append(title, ...sides);
}

function addSlider(field) {
  const linear = "linear" in field.dataset, slider = Object.assign(document.createElement("input"), { type: "range", step: linear ? 0.01 : 0.02 });
  slider.setAttribute("aria-label", `${field.labels[0].firstChild.textContent.trim()}, slider`);
  slider.addEventListener("input", () => {
    const value = linear ? Number(slider.value) : 10 ** slider.value;
    field.value = linear ? value.toFixed(2) : field.name === "budget" ? power(value, 2) : short(value, 2);
    slider.setAttribute("aria-valuetext", field.value);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
  field.slider = slider;
  field.after(slider);
  follow(field);
}

/** Let the sliders span the runs of a calibration, and a decade beyond them on either side. */
export function reach(calibration) {
  const { region = {}, budgets, losses } = calibration ?? {};
  const spans = {
    student: region.student_params ?? region.params, budget: budgets, tokens: region.student_tokens ?? region.tokens,
    teacher_params: region.teacher_params ?? region.params, teacher_tokens: region.teacher_tokens ?? region.tokens,
    target: losses, teacher_loss: losses,
  };
  for (const field of form.querySelectorAll("[data-low]")) {
    const span = spans[field.name], beyond = "linear" in field.dataset ? [0, 0] : [-1, 1];
    field.span = span && span.map((end, k) => scaled(field, end) + beyond[k]);
    follow(field);
  }
}

const scaled = (field, value) => ("linear" in field.dataset ? Number(value) : Math.log10(value));

function follow(field) {
  if (document.activeElement === field.slider) return;
  const value = scaled(field, read(field.value)), known = Number.isFinite(value) ? [value] : [];
  const [low, high] = field.span ?? [field.dataset.low, field.dataset.high].map((end) => scaled(field, end));
  field.slider.min = Math.min(low, ...known); // a value beyond the runs is still where the slider stands
  field.slider.max = Math.max(high, ...known);
  if (known.length) field.slider.value = value;
  field.slider.setAttribute("aria-valuetext", field.value);
}
