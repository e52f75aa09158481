// Downloads: text, and the figures with their title as one picture.

import { colour } from "./figure.js";

export function download(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Flat rows as CSV; numbers in full. */
export function csv(rows) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const cell = (value) => (value === null || value === undefined ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

/** The verdict over the plots that are shown, as a PNG. */
export function picture(verdict, asked, plots, legend, done) {
  const scale = devicePixelRatio, width = Math.max(...plots.map((plot) => plot.width)), gap = 14 * scale;
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  canvas.width = width + 2 * gap;
  const bold = `600 ${18 * scale}px system-ui`, plain = `${13 * scale}px system-ui`;
  const lines = [...wrapped(pen, bold, verdict, width).map((text) => [bold, text, "ink", 25]), ...wrapped(pen, plain, asked, width).map((text) => [plain, text, "soft", 20]), ...legend.map(([text, tone]) => [plain, `● ${text}`, tone, 19])];
  canvas.height = 2 * gap + lines.reduce((sum, line) => sum + line[3] * scale, 0) + plots.reduce((sum, plot) => sum + plot.height + gap, 0);
  pen.fillStyle = colour("card");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  let y = gap;
  for (const [font, text, tone, step] of lines) {
    pen.font = font;
    pen.fillStyle = colour(tone);
    y += step * scale;
    pen.fillText(text, gap, y);
  }
  for (const plot of plots) {
    pen.drawImage(plot, gap, y + gap);
    y += plot.height + gap;
  }
  canvas.toBlob(done, "image/png");
}

function wrapped(pen, font, text, width) {
  pen.font = font;
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (pen.measureText(longer).width > width) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}
