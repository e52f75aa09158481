"""Report of a fit as data, JSON and text: coefficients, uncertainty, diagnostics, warnings."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.estimation.estimate import FitStatus
from fits.estimation.laws.parametrization import Law
from fits.estimation.model import trained_models
from fits.table.flops import accounting_lines, table_accounting
from fits.table.runs import KINDS
from scaling.laws import coefficients
from scaling.to_plain import nan_to_none

if TYPE_CHECKING:
    from fits.estimation.estimate import Estimate
    from fits.fitting import Fit

INTERVAL = (0.05, 0.95)
"""Quantiles of the draws that are the ends of an interval."""
MIN_CORRELATION = 0.9
"""Least absolute correlation of fitted coordinates that is listed."""


def report_data(fit: Fit) -> dict[str, Any]:
    """Return the content of the report as plain values for JSON. Losses in nats/token."""
    excluded = fit.table.loc[fit.table["excluded"] != "", "excluded"].value_counts()
    used = fit.table[fit.table["excluded"] == ""]
    outliers = fit.table[fit.table["outlier"] != ""]
    return {
        "name": fit.name,
        "source": fit.source,
        "runs": {kind: int((used["kind"] == kind).sum()) for kind in KINDS if (used["kind"] == kind).any()},
        "trained_models": len(np.unique(trained_models(used))),
        "accounting": asdict(table_accounting(fit.table, fit.architecture)),
        "not_used": {str(reason): int(count) for reason, count in excluded.items()},
        "outliers": {str(row.run): str(row.outlier) for row in outliers.itertuples()},
        "seed_noise": seed_noise(fit),
        "seconds": fit.seconds,
        "resampled": fit.resample,
        "coefficients": _coefficients(fit),
        "estimates": [_estimate_data(law, found) for law, found in fit.estimates.items()],
        "held_out": [
            {"law": h.law, "rule": h.rule, "left_out": len(h.runs), "rmse": h.rmse, "relative": h.relative}
            | {
                "inside": h.inside,
                "mean": h.bias,
                "runs": list(h.runs),
                "observed": h.observed,
                "predicted": h.predicted,
            }
            for h in fit.held_out
        ],
        "size": fit.size.to_dict() if fit.size else None,
        "evidence": fit.evidence.to_dict() if fit.evidence else None,
        "repetition": fit.repetition.to_dict() if fit.repetition else None,
        "exponents": fit.exponents.to_dict() if fit.exponents else None,
        "isoflop": fit.isoflop.to_dict() if fit.isoflop else None,
        "misfit": {law: asdict(misfit) for law, misfit in fit.misfit.items()},
        "disagreement": disagreement(fit),
        "notes": list(fit.notes),
        "warnings": [str(finding) for finding in fit.findings],
    }


def seed_noise(fit: Fit) -> float | None:
    """Return the standard deviation of ln(loss) between replicates; None without replicates."""
    used = fit.table[fit.table["excluded"] == ""].assign(ln_loss=lambda table: np.log(table["loss"]))
    cells = used.groupby(["kind", "params", "tokens", "teacher_loss"], dropna=False)["ln_loss"]
    freedom = int((cells.size() - 1).sum())
    return float(np.sqrt(((cells.size() - 1) * cells.var().fillna(0)).sum() / freedom)) if freedom else None


def disagreement(fit: Fit) -> dict[str, dict[str, float]]:
    """Return the rms difference between every other law and the default one, nats/token.

    It is given on the runs, and at ten times their compute: parameters and tokens times the square root of
    ten, with the same teachers.
    """
    if len(fit.distillation) < 2:
        return {}
    used = fit.table[(fit.table["excluded"] == "") & (fit.table["kind"] == "distillation")]
    N, D, L_T = (used[column].to_numpy(np.float64) for column in ("params", "tokens", "teacher_loss"))
    (_, first), *others = fit.distillation.items()
    found: dict[str, dict[str, float]] = {}
    for name, other in others:
        found[name] = {}
        for where, up in (("on the runs", 1.0), ("at 10x their compute", 10**0.5)):
            at = (N * up, D * up, L_T, fit.supervised)
            found[name][where] = float(np.sqrt(np.mean((other.loss(*at) - first.loss(*at)) ** 2)))
    return found


def text_report(fit: Fit) -> str:
    """Return the report for a terminal."""
    report = report_data(fit)
    runs = ", ".join(f"{count} {kind}" for kind, count in report["runs"].items())
    rows, models = sum(report["runs"].values()), report["trained_models"]
    of = f" (checkpoints of {models} trained models)" if models < rows else ""
    lines = [f"{fit.name}: {runs} runs{of}, fitted in {fit.seconds:.1f} s"]
    lines += accounting_lines(table_accounting(fit.table, fit.architecture))
    lines += [f"  excluded: {count} x {reason}" for reason, count in report["not_used"].items()]
    lines += [
        f"  outlier (still fitted): {run}, {reason}" for run, reason in list(report["outliers"].items())[:8]
    ]
    if report["seed_noise"] is not None:
        lines.append(f"  replicates of one configuration differ by {100 * report['seed_noise']:.2f} % (sd)")
    lines += ["", f"{'coefficient':<32}{'value':>12}   90 % interval"]
    for row in report["coefficients"]:
        lines.append(f"{row['law'] + ' ' + row['name']:<32}{row['value']:>12.6g}   {format_interval(row)}")
    for found in report["estimates"]:
        lines += ["", *_estimate_lines(found)]
    lines += ["", "held out (runs left out of a refit, then predicted)"]
    lines += [f"  {held}" for held in fit.held_out] or ["  too few runs of each kind to leave any out"]
    lines += [f"  {misfit.describe(law)}" for law, misfit in fit.misfit.items()]
    lines += [line for part in derived_lines(fit) for line in ("", *part)]
    lines += [""] if report["disagreement"] else []
    for name, far in report["disagreement"].items():
        differences = ", ".join(f"{value:.4f} {where}" for where, value in far.items())
        lines.append(f"{name} differs from {fit.default} by (rms nats): {differences}")
    status_lines = [f"note: {note}" for note in report["notes"]] + [
        f"warning: {w}" for w in report["warnings"]
    ]
    return "\n".join([*lines, *([""] if status_lines else []), *status_lines])


def derived_lines(fit: Fit) -> list[list[str]]:
    """Return the text on the weights of the laws, on scaling exponents and on IsoFLOP profiles."""
    parts = [fit.evidence.lines()] if fit.evidence else []
    parts += [[str(fit.repetition)]] if fit.repetition else []
    parts += [fit.exponents.lines()] if fit.exponents else []
    parts += [fit.isoflop.lines(fit.exponents)] if fit.isoflop and fit.exponents else []
    return parts


def json_report(fit: Fit) -> str:
    """Return the report as JSON; numbers that are not finite are null."""
    return json.dumps(nan_to_none(report_data(fit)), indent=1, ensure_ascii=False, allow_nan=False)


def _coefficients(fit: Fit) -> list[dict[str, Any]]:
    laws: dict[str, Law] = {"supervised": fit.supervised, **fit.distillation}
    rows = []
    for kind, law in laws.items():
        for name, value in coefficients(law).items():
            low, high = np.quantile(fit.draws[kind][name], INTERVAL)
            rows.append(
                {"law": kind, "name": name, "value": float(value), "low": float(low), "high": float(high)}
            )
    return rows


def _estimate_data(law: str, found: Estimate) -> dict[str, Any]:
    rows, n = found.model.rows, found.model.rows.n_supervised
    residual = rows.L - found.losses
    kinds = {"supervised": slice(0, n), "distillation": slice(n, None)}
    if found.model.given_theta is not None:
        del kinds["supervised"]
    errors, widths = found.standard_errors, found.model.prior()[1]
    return {
        "law": law,
        "status": str(found.status),
        "status_detail": found.detail,
        "starts": found.starts,
        "agreed": found.agreed,
        "condition": found.condition,
        "residual": {
            kind: {
                "rmse": float(np.sqrt(np.mean(residual[here] ** 2))),
                "noise": float(np.mean(found.sigma[here])),
            }
            for kind, here in kinds.items()
            if len(residual[here])
        },
        "beyond_delta": found.beyond_delta,
        "priors": bool(found.problem.precision.any()),
        "coordinates": [
            {"name": name, "value": float(theta), "error": float(error), "start": c.prior}
            | {"lower": c.lower, "upper": c.upper, "error_over_prior_sd": float(error / width)}
            for name, theta, error, c, width in zip(
                found.model.names, found.theta, errors, found.model.space, widths, strict=True
            )
        ],
        "correlations": _correlations(found),
        "ridge": found.ridge,
    }


def _correlations(found: Estimate) -> list[dict[str, Any]]:
    covariance = np.linalg.pinv(found.information, hermitian=True)
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    pairs = zip(*np.triu_indices(len(scale), 1), strict=True)
    listed = [
        {"a": found.model.names[i], "b": found.model.names[j], "r": float(correlation[i, j])}
        for i, j in pairs
        if abs(correlation[i, j]) > MIN_CORRELATION
    ]
    return sorted(listed, key=lambda pair: -abs(pair["r"]))


def status_lines(found: dict[str, Any]) -> list[str]:
    """Return status lines of one estimate of :func:`report_data`: outcome, residuals, identifiability."""
    detail = f" ({found['status_detail']})" if found["status_detail"] else ""
    lines = [
        f"{found['status']}{detail}; {found['agreed']} of {found['starts']} starts agree; "
        f"condition {found['condition']:.0f}"
    ]
    for kind, residual in found["residual"].items():
        noise = f"{100 * residual['noise']:.2f} %"
        lines.append(f"{kind}: residual rms {residual['rmse']:.4f} nats, estimated noise {noise}")
    if found["beyond_delta"] > 0.5:
        lines.append(
            f"{100 * found['beyond_delta']:.0f} % of the residuals are beyond delta, where Huber's function "
            "is linear: the fit is close to least absolute deviations"
        )
    loose = [
        f"{c['name']} ({100 * c['error_over_prior_sd']:.0f} %)"
        for c in found["coordinates"]
        if c["error_over_prior_sd"] > 0.5
    ]
    if found["priors"] and loose:
        lines.append(f"determined mainly by the priors (standard error / prior sd): {', '.join(loose)}")
    if found["condition"] > 100 or found["status"] == FitStatus.DEGENERATE:
        lines.append(f"least determined combination: {found['ridge']}")
    pairs = [f"{p['a']} ~ {p['b']} {p['r']:+.3f}" for p in found["correlations"][:4]]
    return lines + ([f"correlated: {'; '.join(pairs)}"] if pairs else [])


def _estimate_lines(found: dict[str, Any]) -> list[str]:
    first, *others = status_lines(found)
    lines = [f"{found['law']}: {first}", *(f"  {line}" for line in others)]
    lines.append(f"  {'fitted coordinate':<26}{'value':>10}{'error':>10}{'start':>10}   bounds")
    for c in found["coordinates"]:
        numbers = f"{c['value']:>10.4f}{c['error']:>10.4f}{c['start']:>10.3f}"
        lines.append(f"  {c['name']:<26}{numbers}   {c['lower']:.2f} .. {c['upper']:.2f}")
    return lines


def format_interval(row: dict[str, Any]) -> str:
    """Format the interval of a coefficient."""
    return "fixed" if row["low"] == row["high"] else f"{row['low']:.5g} .. {row['high']:.5g}"
