// A cursor by keyboard over the points of a figure, which reads the values there.

export class Cursor {
  /** `points` gives the x of the points and the number of the first one read, or nothing before there are any;
   * `read` shows the readings of a point's number, and `take`, where given, is asked about an x by Enter. */
  constructor(place, figure, points, read, take) {
    Object.assign(this, { figure, points, read, take, at: null });
    place.addEventListener("keydown", (event) => this.walk(event));
    place.addEventListener("blur", () => this.put(null));
  }

  /** Arrows, Home and End move it, Enter takes its point, Escape puts it away. */
  walk(event) {
    const [x, first] = this.points() ?? [];
    if (!x || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = x.length - 1, here = this.at ?? first;
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last }[event.key];
    if (to !== undefined) this.put(Math.max(0, Math.min(last, to)));
    else if (event.key === "Enter" && this.take && this.at !== null) this.take(x[this.at]);
    else if (event.key === "Escape") this.put(null);
    else return;
    event.preventDefault();
  }

  /** Put it at a point's number, or away. */
  put(at) {
    this.at = at;
    const plot = this.figure.drawn;
    if (!plot) return;
    plot.setCursor(at === null ? { left: -10, top: -10 } : { left: plot.valToPos(this.points()[0][at], "x"), top: plot.over.clientHeight / 2 });
    this.read(at);
  }
}
