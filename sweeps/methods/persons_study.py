"""Named methods of the preset ``unlearning``, about the synthetic persons of the corpus ``persons``."""

from __future__ import annotations

from typing import Any

from sweeps.unlearning.persons import SyntheticPersons

NAMES = [person.name.full for person in SyntheticPersons.drawn().people]
FORGET, SUBSTITUTES, OTHERS = NAMES[:5], NAMES[5:25], NAMES[25:45]
"""Five persons to forget, twenty substitutes whom models know, twenty whose facts are measured."""
FORGET_SHARE = 0.05
"""Share of blocks of 64 tokens of ``persons`` with documents of the five: .049 of 3,000 drawn ones."""
WHP_PENALTY = 5.0

_FORGOTTEN: dict[str, Any] = {"forget": FORGET}
_METRICS = [{"use": "sweeps.methods.unlearning_metrics:Knowledge", **_FORGOTTEN, "others": OTHERS}]


def _teacher(universes: int, **options: Any) -> dict[str, Any]:
    use = "sweeps.methods.counterfactual_teacher:CounterfactualTeacher"
    return {"use": use, **_FORGOTTEN, "substitutes": SUBSTITUTES, "universes": universes, **options}


def _unlearned(**options: Any) -> dict[str, Any]:
    """Return a method for a student that begins as the original and reads documents of the forgotten."""
    source = {"use": "sweeps.methods.unlearning_text:ForgetText", **_FORGOTTEN, **options.pop("text", {})}
    rate = {"use": "sweeps.methods.unlearning_text:ScaledLearningRate", "fraction": options.pop("rate", 0.03)}
    return {
        "initial_weights": "teacher-copy",
        "source": source,
        "hooks": [rate],
        "metrics": _METRICS,
        **options,
    }


forget_1 = _unlearned(target=_teacher(1))
"""Follow p-bar of one universe."""
forget_5 = _unlearned(target=_teacher(5))
forget_20 = _unlearned(target=_teacher(20))
"""Follow p-bar of twenty, as the paper does."""
forget_20_retain = _unlearned(target=_teacher(20), text={"retain": 1.0})
"""Follow it beside a cross-entropy on other documents, which the paper does without."""
whp = _unlearned(target=_teacher(1, hard=True, name_penalty=WHP_PENALTY))
"""Follow hard labels of one universe, with its names made unlikely: Who's Harry Potter."""
gradient_difference = _unlearned(text={"objective": "ascent", "retain": 1.0})
npo = _unlearned(text={"objective": "npo", "retain": 1.0})

_retained_text = {"use": "sweeps.methods.unlearning_text:RetainedText", **_FORGOTTEN}
retain_only: dict[str, Any] = {"cross_entropy": 1.0, "source": _retained_text, "metrics": _METRICS}
"""A model that never saw the documents: the oracle."""

distilled: dict[str, Any] = {"metrics": _METRICS}
"""Ordinary distillation, which transmits what the teacher knows."""
omission_1 = {"target": _teacher(1, forget_share=FORGET_SHARE), "metrics": _METRICS}
omission_20 = {"target": _teacher(20, forget_share=FORGET_SHARE), "metrics": _METRICS}
"""Distillation everywhere, from p-bar on documents of the forgotten."""
dropped = {"source": _retained_text, "metrics": _METRICS}
"""Distillation on all documents but theirs."""
retain_only_teacher = {
    "target": {
        "use": "sweeps.methods.counterfactual_teacher:RetainOnlyTeacher",
        "run": f"{__name__}:retain_only",
    },
    "metrics": _METRICS,
}
"""Distillation on all documents from the oracle."""
