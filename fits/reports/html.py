"""HTML report of a fit: a self-contained page, or the output of a notebook cell."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fits.checks.comparison.evidence import COLUMNS
from fits.reports.text import format_interval, report_data, status_lines
from fits.table.flops import accounting_lines, table_accounting

if TYPE_CHECKING:
    from fits.fitting import Fit
    from scaling.figures.figure import Figure

SCOPE = ".distlaw-fit"
STYLE = (
    f"{SCOPE}{{font:15px/1.5 system-ui,sans-serif}}"
    f"{SCOPE} table{{border-collapse:collapse}}"
    f"{SCOPE} td,{SCOPE} th{{padding:.15em .8em;border-bottom:1px solid #8886;text-align:left}}"
    f"{SCOPE} td.n,{SCOPE} th.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}"
    f"{SCOPE} .wide{{overflow-x:auto}}"
    f"{SCOPE} figure{{margin:1.5em 0;break-inside:avoid}}"
    f"{SCOPE} img{{max-width:100%;height:auto;background:#fff}}"
)
PAGE_STYLE = (
    ":root{color-scheme:light dark}body{max-width:70em;margin:2em auto;padding:0 1em}"
    "@media print{:root{color-scheme:light}body{margin:0}h2{break-after:avoid}tr{break-inside:avoid}"
    f"{SCOPE} .wide{{overflow:visible}}}}"
)


def html_page(fit: Fit) -> str:
    """Return the report as a complete page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(fit.name)}</title><style>{PAGE_STYLE}</style></head>"
        f"<body><main>{html_fragment(fit)}</main></body></html>\n"
    )


def html_fragment(fit: Fit) -> str:
    """Return the report as a fragment for another page, with styles that apply to it alone."""
    report = report_data(fit)
    runs = " and ".join(f"{count} {kind}" for kind, count in report["runs"].items())
    of = f" of {escape(fit.source)}" if fit.source else ""
    parts = [
        f"<h1>{escape(fit.name)}</h1><p>{runs} runs{of}, fitted in {fit.seconds:.1f} s; intervals are 90 %, "
        f"losses are nats/token.</p>",
        *(
            f"<p>{escape(text)}</p>"
            for text in accounting_lines(table_accounting(fit.table, fit.architecture))
        ),
        _section("Warnings", report["warnings"]),
        _section("Notes", report["notes"]),
        _section("Rows excluded", (f"{count} x {why}" for why, count in report["not_used"].items())),
        _section("Outliers (still fitted)", (f"{run}: {why}" for run, why in report["outliers"].items())),
        "<h2>Coefficients</h2>",
        _table(
            {"law": "", "coefficient": "", "value": "n", "90 % interval": "n"},
            [[r["law"], r["name"], f"{r['value']:.6g}", format_interval(r)] for r in report["coefficients"]],
        ),
        *(_estimate_section(found) for found in report["estimates"]),
        "<h2>Held out</h2><p>Runs left out of a refit, then predicted.</p>",
        _table(
            {"law": "", "left out": "", "runs": "n", "rms error (nats)": "n", "relative": "n", "mean": "n"},
            [_held_out_cells(held) for held in report["held_out"]],
        ),
        *_evidence_section(fit),
        *_exponents_section(fit),
        _section("Differences of other laws from the default", _disagreement_lines(report["disagreement"])),
        "<h2>Figures</h2>",
        *(_figure(figure, description) for description, figure in _figures(fit).items()),
    ]
    return f'<style>{STYLE}</style><div class="distlaw-fit">{"".join(parts)}</div>'


def _evidence_section(fit: Fit) -> list[str]:
    if fit.evidence is None:
        return []
    head, *_ = fit.evidence.lines()
    columns = dict(zip(COLUMNS, ("", "n", "n", "n", ""), strict=True))
    return [f"<h2>Weights of the laws</h2><p>{escape(head)}</p>", _table(columns, fit.evidence.table())]


def _exponents_section(fit: Fit) -> list[str]:
    parts = [["Repeated data", str(fit.repetition)]] if fit.repetition else []
    parts += [fit.exponents.lines()] if fit.exponents else []
    parts += [fit.isoflop.lines(fit.exponents)] if fit.isoflop and fit.exponents else []
    return [_section(head, lines) for head, *lines in parts]


def _held_out_cells(held: dict[str, Any]) -> list[str]:
    errors = [f"{held['rmse']:.4f}", f"{100 * held['relative']:.2f} %", f"{held['mean']:+.4f}"]
    return [held["law"], held["rule"], str(held["left_out"]), *errors]


def _disagreement_lines(disagreement: dict[str, dict[str, float]]) -> Iterable[str]:
    for name, far in disagreement.items():
        yield f"{name}: " + ", ".join(f"{value:.4f} nats rms {where}" for where, value in far.items())


def _figures(fit: Fit) -> dict[str, Figure]:
    """Return every figure by a description of it, for readers who cannot see it."""
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


def _estimate_section(found: dict[str, Any]) -> str:
    columns = {
        "coordinate": "",
        "value": "n",
        "standard error": "n",
        "start": "n",
        "bounds": "n",
        "error / prior sd": "n",
    }
    rows = [
        [
            c["name"],
            f"{c['value']:.4f}",
            f"{c['error']:.4f}",
            f"{c['start']:.3f}",
            f"{c['lower']:.2f} .. {c['upper']:.2f}",
            f"{100 * c['error_over_prior_sd']:.0f} %",
        ]
        for c in found["coordinates"]
    ]
    return _section(f"Estimate: {found['law']}", status_lines(found)) + _table(columns, rows)


def _section(title: str, items: Iterable[str]) -> str:
    """Return a heading and a list, or nothing for an empty list."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<h2>{escape(title)}</h2><ul>{lines}</ul>" if lines else ""


def _table(columns: dict[str, str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls if it is too wide; ``columns`` gives each its class, "n" for numbers."""
    if not rows:
        return "<p>None: too few runs.</p>"

    def line(tag: str, cells: Iterable[str]) -> str:
        styled = zip(columns.values(), cells, strict=True)
        return "<tr>" + "".join(f'<{tag} class="{kind}">{escape(cell)}</{tag[:2]}>' for kind, cell in styled)

    body = "".join(line("td", row) + "</tr>" for row in rows)
    head = line('th scope="col"', columns) + "</tr>"
    return f'<div class="wide" tabindex="0"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _figure(figure: Figure, description: str) -> str:
    """Return a figure as an image, so that identifiers inside one drawing do not clash with another's."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    image = base64.b64encode(buffer.getvalue()).decode()
    source = f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{image}">'
    return f"<figure>{source}<figcaption>{escape(description)}</figcaption></figure>"
