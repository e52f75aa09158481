"""The report of a fit: what was found, how sure it is, and what to distrust; as data, JSON and text."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from fits.estimation.estimate import Status
from fits.estimation.model import trained_models
from fits.estimation.parametrization import Law
from fits.table.flops import basis, counted
from fits.table.runs import KINDS
from scaling.laws import coefficients

if TYPE_CHECKING:
    from fits.estimation.estimate import Estimate
    from fits.fitting import Fit

INTERVAL = (0.05, 0.95)
CORRELATED = 0.9
"""Correlations of fitted coordinates beyond this are listed."""


def data(fit: Fit) -> dict[str, Any]:
    """Everything the report says, as plain values for JSON. Losses in nats/token."""
    excluded = fit.table.loc[fit.table["excluded"] != "", "excluded"].value_counts()
    used = fit.table[fit.table["excluded"] == ""]
    outliers = fit.table[fit.table["outlier"] != ""]
    return {
        "name": fit.name,
        "source": fit.source,
        "runs": {kind: int((used["kind"] == kind).sum()) for kind in KINDS if (used["kind"] == kind).any()},
        "trained_models": len(np.unique(trained_models(used))),
        "accounting": asdict(counted(fit.table, fit.architecture)),
        "not_used": {str(reason): int(count) for reason, count in excluded.items()},
        "outliers": {str(row.run): str(row.outlier) for row in outliers.itertuples()},
        "seed_noise": seed_noise(fit),
        "seconds": fit.seconds,
        "resampled": fit.resample,
        "coefficients": _coefficients(fit),
        "estimates": [_estimate(law, found) for law, found in fit.estimates.items()],
        "held_out": [
            {"law": h.law, "rule": h.rule, "left_out": len(h.runs), "rmse": h.rmse, "relative": h.relative}
            | {"mean": h.bias, "runs": list(h.runs), "observed": h.observed, "predicted": h.predicted}
            for h in fit.held_out
        ],
        "disagreement": disagreement(fit),
        "notes": list(fit.notes),
        "warnings": [str(finding) for finding in fit.findings],
    }


def seed_noise(fit: Fit) -> float | None:
    """Standard deviation of ln(loss) between repeats of one configuration; None without repeats."""
    used = fit.table[fit.table["excluded"] == ""].assign(ln_loss=lambda table: np.log(table["loss"]))
    cells = used.groupby(["kind", "params", "tokens", "teacher_loss"], dropna=False)["ln_loss"]
    freedom = int((cells.size() - 1).sum())
    return float(np.sqrt(((cells.size() - 1) * cells.var().fillna(0)).sum() / freedom)) if freedom else None


def disagreement(fit: Fit) -> dict[str, dict[str, float]]:
    """How far every other law is from the default one, rms nats/token: on the runs, and at ten times their
    compute (parameters and tokens times the square root of ten, the same teachers)."""
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


def text(fit: Fit) -> str:
    """The report for a terminal."""
    report = data(fit)
    runs = ", ".join(f"{count} {kind}" for kind, count in report["runs"].items())
    rows, models = sum(report["runs"].values()), report["trained_models"]
    of = f" (checkpoints of {models} trained models)" if models < rows else ""
    lines = [f"{fit.name}: {runs} runs{of}, fitted in {fit.seconds:.1f} s"]
    lines += basis(counted(fit.table, fit.architecture))
    lines += [f"  not used: {count} x {reason}" for reason, count in report["not_used"].items()]
    lines += [f"  outlier: {run}, {reason} (kept)" for run, reason in list(report["outliers"].items())[:8]]
    if report["seed_noise"] is not None:
        lines.append(f"  repeats of one configuration differ by {100 * report['seed_noise']:.2f} % (sd)")
    lines += ["", f"{'coefficient':<32}{'value':>12}   90 % interval"]
    for row in report["coefficients"]:
        lines.append(f"{row['law'] + ' ' + row['name']:<32}{row['value']:>12.6g}   {span(row)}")
    for found in report["estimates"]:
        lines += ["", *_estimate_lines(found)]
    lines += ["", "held out (left out of a refit, then predicted)"]
    lines += [f"  {held}" for held in fit.held_out] or ["  too few runs of a kind to leave any out"]
    for name, far in report["disagreement"].items():
        said = ", ".join(f"{value:.4f} {where}" for where, value in far.items())
        lines.append(f"{name} differs from {fit.default} by (rms nats): {said}")
    ending = [f"note: {note}" for note in report["notes"]] + [f"warning: {w}" for w in report["warnings"]]
    return "\n".join([*lines, *([""] if ending else []), *ending])


def as_json(fit: Fit) -> str:
    """The report as JSON; numbers that are not finite are null."""
    return json.dumps(_finite(data(fit)), indent=1, ensure_ascii=False, allow_nan=False)


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


def _estimate(law: str, found: Estimate) -> dict[str, Any]:
    rows, n = found.model.rows, found.model.rows.supervised
    residual = rows.L - found.losses
    kinds = {"supervised": slice(0, n), "distillation": slice(n, None)}
    if found.model.given is not None:
        del kinds["supervised"]
    errors, widths = found.standard_errors, found.model.prior()[1]
    return {
        "law": law,
        "status": str(found.status),
        "about": found.detail,
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
            | {"lower": c.lower, "upper": c.upper, "of_prior": float(error / width)}
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
        if abs(correlation[i, j]) > CORRELATED
    ]
    return sorted(listed, key=lambda pair: -abs(pair["r"]))


def ending(found: dict[str, Any]) -> list[str]:
    """How one estimate of :func:`data` ended and what holds it, a sentence each."""
    about = f" ({found['about']})" if found["about"] else ""
    said = [
        f"{found['status']}{about}; {found['agreed']} of {found['starts']} starts agree; "
        f"condition {found['condition']:.0f}"
    ]
    for kind, residual in found["residual"].items():
        noise = f"{100 * residual['noise']:.2f} %"
        said.append(f"{kind}: residual rms {residual['rmse']:.4f} nats, noise taken as {noise}")
    if found["beyond_delta"] > 0.5:
        said.append(
            f"{100 * found['beyond_delta']:.0f} % of the rows are beyond delta, where Huber's function is "
            "linear: close to least absolute deviations"
        )
    loose = [
        f"{c['name']} ({100 * c['of_prior']:.0f} %)" for c in found["coordinates"] if c["of_prior"] > 0.5
    ]
    if found["priors"] and loose:
        said.append(f"held mainly by the weak priors (error / prior's width): {', '.join(loose)}")
    if found["condition"] > 100 or found["status"] == Status.DEGENERATE:
        said.append(f"least determined: {found['ridge']}")
    pairs = [f"{p['a']} ~ {p['b']} {p['r']:+.3f}" for p in found["correlations"][:4]]
    return said + ([f"correlated: {'; '.join(pairs)}"] if pairs else [])


def _estimate_lines(found: dict[str, Any]) -> list[str]:
    first, *others = ending(found)
    lines = [f"{found['law']}: {first}", *(f"  {said}" for said in others)]
    lines.append(f"  {'fitted coordinate':<26}{'value':>10}{'error':>10}{'start':>10}   bounds")
    for c in found["coordinates"]:
        numbers = f"{c['value']:>10.4f}{c['error']:>10.4f}{c['start']:>10.3f}"
        lines.append(f"  {c['name']:<26}{numbers}   {c['lower']:.2f} .. {c['upper']:.2f}")
    return lines


def span(row: dict[str, Any]) -> str:
    """The interval of a coefficient in words."""
    return "fixed" if row["low"] == row["high"] else f"{row['low']:.5g} .. {row['high']:.5g}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
