// Quantities as people write and read them; the server reads them again, and its word counts.

const SCALES = { k: 1e3, m: 1e6, b: 1e9, t: 1e12 };

/** The number in a text such as 300M or 1e21, or NaN. */
export function read(text) {
  const match = /^\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmbt]?)/i.exec(text.replaceAll(",", ""));
  return match ? Number(match[1].replaceAll("_", "")) * (SCALES[match[2].toLowerCase()] ?? 1) : NaN;
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

export const loss = (value) => value.toFixed(3);
export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

/** An estimate with its interval, where it has one. */
export function estimate(each, write = loss) {
  return each.low === null ? write(each.value) : `${write(each.value)} [${write(each.low)}, ${write(each.high)}]`;
}
