"""The report of a fit as HTML: one page, figures inside, nothing from the network; or a notebook's cell."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fits.reports.text import data, ending, span
from fits.table.flops import basis, counted

if TYPE_CHECKING:
    from fits.fitting import Fit
    from scaling.figures.figure import Figure

OWN = ".distlaw-fit"
STYLE = (
    f"{OWN}{{font:15px/1.5 system-ui,sans-serif}}"
    f"{OWN} table{{border-collapse:collapse}}"
    f"{OWN} td,{OWN} th{{padding:.15em .8em;border-bottom:1px solid #8886;text-align:left}}"
    f"{OWN} td.n,{OWN} th.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}"
    f"{OWN} .wide{{overflow-x:auto}}"
    f"{OWN} figure{{margin:1.5em 0;break-inside:avoid}}"
    f"{OWN} img{{max-width:100%;height:auto;background:#fff}}"
)
PAGE_STYLE = (
    ":root{color-scheme:light dark}body{max-width:70em;margin:2em auto;padding:0 1em}"
    "@media print{:root{color-scheme:light}body{margin:0}h2{break-after:avoid}tr{break-inside:avoid}"
    f"{OWN} .wide{{overflow:visible}}}}"
)


def page(fit: Fit) -> str:
    """The report as a file of its own."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(fit.name)}</title><style>{PAGE_STYLE}</style></head>"
        f"<body><main>{fragment(fit)}</main></body></html>\n"
    )


def fragment(fit: Fit) -> str:
    """The report as a part of another page, styling nothing but itself."""
    report = data(fit)
    runs = " and ".join(f"{count} {kind}" for kind, count in report["runs"].items())
    of = f" of {escape(fit.source)}" if fit.source else ""
    parts = [
        f"<h1>{escape(fit.name)}</h1><p>{runs} runs{of}, fitted in {fit.seconds:.1f} s; intervals are 90 %, "
        f"losses are nats/token.</p>",
        *(f"<p>{escape(text)}</p>" for text in basis(counted(fit.table, fit.architecture))),
        _listed("Warnings", report["warnings"]),
        _listed("Notes", report["notes"]),
        _listed("Rows not used", (f"{count} x {why}" for why, count in report["not_used"].items())),
        _listed("Outliers, kept", (f"{run}: {why}" for run, why in report["outliers"].items())),
        "<h2>Coefficients</h2>",
        _table(
            {"law": "", "coefficient": "", "value": "n", "90 % interval": "n"},
            [[r["law"], r["name"], f"{r['value']:.6g}", span(r)] for r in report["coefficients"]],
        ),
        *(_estimate(found) for found in report["estimates"]),
        "<h2>Held out</h2><p>Left out of a refit, then predicted.</p>",
        _table(
            {"law": "", "left out": "", "runs": "n", "rms error (nats)": "n", "relative": "n", "mean": "n"},
            [_held(held) for held in report["held_out"]],
        ),
        _listed("The laws beside the default one", _apart(report["disagreement"])),
        "<h2>Figures</h2>",
        *(_figure(figure, said) for said, figure in _figures(fit).items()),
    ]
    return f'<style>{STYLE}</style><div class="distlaw-fit">{"".join(parts)}</div>'


def _held(held: dict[str, Any]) -> list[str]:
    errors = [f"{held['rmse']:.4f}", f"{100 * held['relative']:.2f} %", f"{held['mean']:+.4f}"]
    return [held["law"], held["rule"], str(held["left_out"]), *errors]


def _apart(disagreement: dict[str, dict[str, float]]) -> Iterable[str]:
    for name, far in disagreement.items():
        yield f"{name}: " + ", ".join(f"{value:.4f} nats rms {where}" for where, value in far.items())


def _figures(fit: Fit) -> dict[str, Figure]:
    """Every figure by what it shows, in words for who does not see it."""
    figures = {
        "Predicted against observed losses of the runs, with the residuals beside.": fit.plot.predicted(),
        "Loss over parameters at fixed compute under the supervised law, with the runs.": fit.plot.isoflop(),
        "Residuals in units of the noise over predicted loss, and against a normal distribution.": (
            fit.plot.residuals()
        ),
    }
    for law in fit.distillation:
        figures[f"Student loss over teacher loss under the {law} law, with the runs."] = fit.plot.law(law)
    return figures


def _estimate(found: dict[str, Any]) -> str:
    columns = {
        "coordinate": "",
        "value": "n",
        "error": "n",
        "start": "n",
        "bounds": "n",
        "of prior's width": "n",
    }
    rows = [
        [
            c["name"],
            f"{c['value']:.4f}",
            f"{c['error']:.4f}",
            f"{c['start']:.3f}",
            f"{c['lower']:.2f} .. {c['upper']:.2f}",
            f"{100 * c['of_prior']:.0f} %",
        ]
        for c in found["coordinates"]
    ]
    return _listed(f"Estimate: {found['law']}", ending(found)) + _table(columns, rows)


def _listed(title: str, items: Iterable[str]) -> str:
    """A heading and a list; nothing where the list is empty."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<h2>{escape(title)}</h2><ul>{lines}</ul>" if lines else ""


def _table(columns: dict[str, str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls where it is too wide; ``columns`` gives each its class, "n" for numbers."""
    if not rows:
        return "<p>None: too few runs.</p>"

    def line(tag: str, cells: Iterable[str]) -> str:
        styled = zip(columns.values(), cells, strict=True)
        return "<tr>" + "".join(f'<{tag} class="{kind}">{escape(cell)}</{tag[:2]}>' for kind, cell in styled)

    body = "".join(line("td", row) + "</tr>" for row in rows)
    head = line('th scope="col"', columns) + "</tr>"
    return f'<div class="wide" tabindex="0"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _figure(figure: Figure, said: str) -> str:
    """As an image, so that the names inside one drawing do not meet those of another."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    image = base64.b64encode(buffer.getvalue()).decode()
    source = f'<img alt="{escape(said)}" src="data:image/svg+xml;base64,{image}">'
    return f"<figure>{source}<figcaption>{escape(said)}</figcaption></figure>"
