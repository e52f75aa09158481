"""Laws of each method: coefficients that were put in are found again, and what tables do not allow."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from fits import LawsByMethod, laws_by_method
from scaling import InputError

SIZES, TOKENS = (4e3, 14e3, 56e3), (1.3e5, 2.6e5, 5.2e5)
TRUTH = {  # E, A N^-alpha and B D^-beta at 1e4 and 2e5, alpha, beta
    "control": (0.10, 0.20, 0.50, 0.030, 0.8),
    "worse": (0.10, 0.40, 0.50, 0.060, 0.8),  # amplitudes only
    "limited": (0.20, 0.20, 0.50, 0.030, 0.8),  # limit only
    "steeper": (0.10, 0.20, 0.80, 0.030, 0.8),  # exponent of size only
}


def table(noise: float = 0.0, common: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Two seeds of each size and token count; ``common`` scatter is the same of all methods."""
    draw = np.random.default_rng(seed)
    cells = [(N, D, number) for N in SIZES for D in TOKENS for number in (0, 1)]
    shared = common * draw.standard_normal(len(cells))
    rows = [
        {
            "method": method,
            "params": N,
            "tokens": D,
            "seed": number,
            "teacher": "t",
            "fvu_0": (E + size * (N / 1e4) ** -alpha + tokens * (D / 2e5) ** -beta) * np.exp(off + own),
        }
        for method, (E, size, alpha, tokens, beta) in TRUTH.items()
        for (N, D, number), off, own in zip(
            cells, shared, noise * draw.standard_normal(len(cells)), strict=True
        )
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=seed)


def row(found: LawsByMethod, method: str, coefficient: str) -> pd.Series:
    frame = found.to_frame()
    return frame[(frame["method"] == method) & (frame["coefficient"] == coefficient)].iloc[0]


def test_coefficients_are_found_again_without_noise() -> None:
    found = laws_by_method(table(), "fvu_0", "control", draws=20)
    assert found.params == pytest.approx(np.prod(SIZES) ** (1 / 3))
    for method, (E, size, alpha, tokens, beta) in TRUTH.items():
        expected = {
            "E": E,
            "size": size * (found.params / 1e4) ** -alpha,
            "alpha": alpha,
            "tokens": tokens * (found.tokens / 2e5) ** -beta,
            "beta": beta,
            "limit": E + tokens * (found.tokens / 2e5) ** -beta,
        }
        for name, value in expected.items():
            assert row(found, method, name)["value"] == pytest.approx(value, rel=0.02), (method, name)
        assert found.misfit[method] < 1e-4


def test_what_differs_is_told_from_what_does_not_where_methods_share_their_scatter() -> None:
    found = laws_by_method(table(noise=0.002, common=0.01), "fvu_0", "control", draws=100)

    def differs(method: str, coefficient: str) -> bool:
        of = row(found, method, coefficient)
        return not of["difference_low"] <= 0 <= of["difference_high"]

    assert differs("steeper", "alpha")
    assert differs("limited", "E")
    assert differs("worse", "size")
    assert not differs("worse", "alpha")
    assert not differs("limited", "alpha")
    of = row(found, "limited", "alpha")
    assert of["difference_high"] - of["difference_low"] < 0.7 * (of["high"] - of["low"])


def test_methods_of_other_designs_are_compared_without_pairing() -> None:
    runs = table(noise=0.002, common=0.01)
    few = runs[(runs["method"] != "worse") | (runs["seed"] == 0)]
    paired, unpaired = (laws_by_method(each, "fvu_0", "control", draws=60) for each in (runs, few))
    widths = [
        of["difference_high"] - of["difference_low"]
        for of in (row(each, "worse", "alpha") for each in (paired, unpaired))
    ]
    assert widths[1] > 1.5 * widths[0]


def test_it_is_printed_and_serialized() -> None:
    runs = table()
    extra = runs[(runs["method"] == "worse") & (runs["params"] == SIZES[0])].assign(method="few")
    found = laws_by_method(pd.concat([runs, extra]), "fvu_0", "control", draws=20)
    text = str(found)
    assert "Laws of fvu_0 by method; differences from control" in text
    assert "note: few has too few runs for a law" in text
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["coefficients"][0]["difference"] is None
    assert len(again["coefficients"]) == 4 * 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"column": "fvu_9"}, "no column 'fvu_9'; the table has"),
        ({"control": "nobody"}, r"the control nobody among them; found control, limited, steeper, worse"),
        ({"fvu_0": -1.0}, r"row 4, column 'fvu_0': -1, not a positive number"),
        ({"teacher": "u"}, "have 2 teachers; give those of one"),
    ],
)
def test_unusable_tables_are_refused(change: dict[str, object], message: str) -> None:
    runs = table().reset_index(drop=True)
    for name in ("fvu_0", "teacher"):
        if name in change:
            runs.loc[3, name] = change[name]
    options = {"column": "fvu_0", "control": "control"} | {
        k: str(v) for k, v in change.items() if k in ("column", "control")
    }
    with pytest.raises(InputError, match=message):
        laws_by_method(runs, draws=20, **options)  # type: ignore[arg-type]
