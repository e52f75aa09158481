// Quantities as people write and read them. The server is sent what was written, and its reading counts; `read`
// is the grammar of scaling/units.py again, for the sliders alone, and a test compares the two.

const SCALES = { "": 0, k: 3, m: 6, b: 9, t: 12 };
const FLOP_SCALES = { ...SCALES, g: 9, p: 15, e: 18, z: 21, y: 24 };
const NUMBER = /([+-]?(?:[1-9][0-9]{0,2}(?:(?:_[0-9]{3})+|(?:,[0-9]{3}){2,})(?:\.[0-9]+)?|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+))(?:e([+-]?[0-9]{1,4}))?/;
const QUANTITY = new RegExp(`^${NUMBER.source} *([kmbtgpezy]?) *(flops?(?:/s)?|tokens?|param(?:eter)?s?|)$`, "i");

/** The positive number in a text such as 300M or 1e21, or NaN. */
export function read(text) {
  const [first, ...again] = text.replace(/[\t\n\r\u00a0\u2009\u202f]/g, " ").replace(/^ +| +$/g, "").split(" (");
  const value = quantity(first);
  if (!(value > 0 && Number.isFinite(value))) return NaN;
  if (!again.length) return value;
  const tail = again.join(" ("), restated = tail.endsWith(")") ? quantity(tail.slice(0, -1)) : NaN;
  return Math.abs(restated - value) <= 6e-3 * Math.max(Math.abs(restated), value) ? value : NaN;
}

function quantity(text) {
  const match = QUANTITY.exec(text);
  if (!match) return NaN;
  const [, number, exponent, scale, unit] = match.map((part) => part ?? "");
  const power = (/^flop/i.test(unit) ? FLOP_SCALES : SCALES)[scale.toLowerCase()];
  return power === undefined ? NaN : Number(`${number.replace(/[,_]/g, "")}e${Number(exponent) + power}`);
}

/** Three significant figures with K, M, B or T: 1.46B. */
export function short(value, digits = 3) {
  const rounded = Number(value.toPrecision(digits));
  for (const [suffix, scale] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["K", 1e3]]) {
    if (Math.abs(rounded) >= scale && Math.abs(rounded) < 1e15) return `${Number((rounded / scale).toPrecision(digits))}${suffix}`;
  }
  return Math.abs(rounded) >= 1e15 ? power(value, digits) : String(rounded);
}

/** Three significant figures as a power of ten: 3.2e20. */
export function power(value, digits = 3) {
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  return `${Number(mantissa)}e${Number(exponent)}`;
}

/** How many times outside the fitted runs. */
export const times = (factor) => (factor >= 1e6 ? "more than 1,000,000x" : `${Number(factor.toPrecision(2)).toLocaleString("en")}x`);

export const loss = (value) => value.toFixed(3);
export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

/** An estimate with its interval, where it has one. */
export function estimate(each, write = loss) {
  return each.low === null ? write(each.value) : `${write(each.value)} [${write(each.low)}, ${write(each.high)}]`;
}
