"""``distlaw plan``: whether to distil, with what, at what cost. Loads neither torch nor pandas."""

from __future__ import annotations

import sys
from math import inf
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distlaw.commands.planner.plan_bill import asked_device, billed, given_numbers, priced_answer
from distlaw.commands.planner.plan_private import (
    Delta,
    Epsilon,
    PrivateAsked,
    PrivateTeachers,
    print_private_plan,
)
from distlaw.commands.planner.teachers import (
    Active,
    Catalogue,
    Loss,
    Named,
    Tokens,
    asked_teachers,
    teacher_notes,
)
from distlaw.number_options import count_from
from distlaw.options import (
    LIMITS,
    OUTPUT,
    Aspect,
    Calibration,
    Csv,
    Extrapolate,
    Flops,
    Json,
    Law,
    ScenarioNames,
    Vocab,
    Window,
    check_output,
    counting,
    for_terminal,
    parse_budgets,
    parse_constraints,
    parse_optional,
    refuse,
    with_options,
    write_csv,
    write_json,
)
from scaling.calibration.calibration import DEFAULT_CALIBRATION
from scaling.calibration.calibration import Calibration as Fitted
from scaling.costs.budget import Budget
from scaling.costs.hardware import Hardware
from scaling.costs.scenarios import SCENARIOS
from scaling.costs.scenarios import scenario as named
from scaling.errors import InputError
from scaling.open_models import parse_params
from scaling.planner.plan import Plan
from scaling.planner.planner import plan
from scaling.planner.question import Question
from scaling.planner.teacher_catalogue import shared_vocabulary
from scaling.reports.logit_storage_text import logit_storage_lines
from scaling.reports.plan_brief import plan_brief
from scaling.reports.plan_text import plan_text
from scaling.units import parse_list

if TYPE_CHECKING:
    from scaling.frontiers.frontier import Frontier

DEVICE, FAMILY = "Hours and dollars", "Several students"
"""Groups of options in help."""
FRONTIER_POINTS = 25
PLOTTED_DECADES = 1.5
"""Reach of the plotted frontier on each side of a single budget, powers of ten."""

NEEDS = """give a budget or a target loss, one of the two, and the student's size if it is settled:
  distlaw plan --student 300M --budget 1e21
  distlaw plan --student 300M --target-loss 2.4"""
HELP = """Distil or train directly? The best teacher, tokens and split of the compute, with the expected loss.

Sizes are non-embedding parameters (300M), budgets FLOPs, device hours or dollars, losses nats/token.
docs/reference/quantities.md lists all that can be written.

Examples:

  distlaw plan --student 300M --budget 1e21

  distlaw plan --student 100k --budget 1e14 --calibration calibration.json

  distlaw plan --student 1B --budget 1e20:1e24 --plot frontier.png

  distlaw plan --student 300M --budget '1000 h100-hours' --teacher Qwen/Qwen3-8B

  distlaw plan --student 1B --budget '$5000 on h100' --teacher 8B --teacher-tokens 15T

  distlaw plan --budget 1e22 --lifetime-tokens 1T --gpu h100

  distlaw plan --student 1B --target-loss 2.2 --teachers catalogue.csv

  distlaw plan --family 100M,300M,1B --budget 3e21

  distlaw plan --private-teachers 1000 --epsilon 8
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan", help=HELP)(plan_command)


def plan_command(
    student: Annotated[
        str, typer.Option(metavar="PARAMS", help="Size of the student; left out, the best size is found.")
    ] = "",
    budget: Annotated[
        str,
        typer.Option(
            metavar="COMPUTE",
            help="For all that is charged: 1e21 FLOPs, '1000 h100-hours', '64 b200 for 10 days', '$5000'; "
            "LOW:HIGH for a range.",
        ),
    ] = "",
    target_loss: Annotated[
        str, typer.Option(metavar="NATS", help="Find the cheapest way to this loss, nats/token.")
    ] = "",
    calibration: Calibration = DEFAULT_CALIBRATION,
    law: Law = None,
    scenario: ScenarioNames = None,
    teacher: Named = None,
    teacher_tokens: Tokens = "",
    teacher_loss: Loss = "",
    teacher_active_params: Active = "",
    teachers: Catalogue = None,
    family: Annotated[
        str,
        typer.Option(
            metavar="SIZES",
            help="Students that share a teacher and the budget: 100M,300M,1B.",
            rich_help_panel=FAMILY,
        ),
    ] = "",
    weights: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS",
            help="How much the loss of each of the family counts: 1,2,1.",
            rich_help_panel=FAMILY,
        ),
    ] = "",
    constrain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BOUND",
            help="E.g. 'teacher_params<=70B', 'student_tokens=1T'; repeat.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    lifetime_tokens: Annotated[
        str,
        typer.Option(
            metavar="TOKENS",
            help="Tokens the student will serve, paid from the budget.",
            rich_help_panel=LIMITS,
        ),
    ] = "",
    unique_tokens: Annotated[
        str,
        typer.Option(
            metavar="TOKENS", help="Distinct tokens for the student; more are epochs.", rich_help_panel=LIMITS
        ),
    ] = "",
    teacher_unique_tokens: Annotated[
        str, typer.Option(metavar="TOKENS", help="Distinct tokens for the teacher.", rich_help_panel=LIMITS)
    ] = "",
    tolerance: Annotated[
        str,
        typer.Option(
            metavar="NATS",
            help="Also explore all within this loss of the optimum, nats/token.",
            rich_help_panel=LIMITS,
        ),
    ] = "",
    private_teachers: PrivateTeachers = "",
    epsilon: Epsilon = "",
    delta: Delta = "",
    flops_rule: Flops = None,
    context: Window = None,
    vocab: Vocab = None,
    aspect_ratio: Aspect = None,
    extrapolate: Extrapolate = False,
    gpu: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Count hours and dollars on this device: h100, mi300x, tpu-v5p, ...",
            rich_help_panel=DEVICE,
        ),
    ] = "",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the device's peak: bf16 (if not given), fp8, tf32, fp32, fp16.", rich_help_panel=DEVICE
        ),
    ] = None,
    mfu: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="Share of the peak that training reaches; 0.4 if not given.",
            rich_help_panel=DEVICE,
        ),
    ] = "",
    count: Annotated[
        int | None,
        typer.Option(
            parser=count_from(1),
            metavar="<int>",
            help="Devices used at once; 1 if not given.",
            rich_help_panel=DEVICE,
        ),
    ] = None,
    price: Annotated[
        str,
        typer.Option(
            metavar="DOLLARS", help="Per device hour, in place of the table's.", rich_help_panel=DEVICE
        ),
    ] = "",
    peak: Annotated[
        str,
        typer.Option(
            metavar="FLOP/s",
            help="Of one device, in place of the table's; e.g. 989e12.",
            rich_help_panel=DEVICE,
        ),
    ] = "",
    store_logits: Annotated[
        str,
        typer.Option(
            metavar="full|K|KIND:K",
            help="Say what storing the logits takes: all, or the top K, in 4 bytes a number; or in a sweep's "
            "cache: cached, top-k:32, top-p:64, sampled:50, with :8 for 8-bit probabilities.",
            rich_help_panel=OUTPUT,
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw loss over compute (PNG, SVG or PDF).", rich_help_panel=OUTPUT
        ),
    ] = None,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Also intervals, ranges of the optima, second laws and assumptions.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: Json = False,
    csv: Csv = False,
) -> None:

    if private_teachers or epsilon or delta:
        asked = PrivateAsked(private_teachers, epsilon, delta, student, calibration)
        others = {
            "--budget": budget, "--target-loss": target_loss, "--scenario": scenario, "--law": law,
            "--teacher": teacher, "--teachers": teachers, "--family": family, "--constrain": constrain,
            "--lifetime-tokens": lifetime_tokens, "--unique-tokens": unique_tokens, "--gpu": gpu,
            "--tolerance": tolerance, "--store-logits": store_logits, "--plot": plot, "--details": details,
        }  # fmt: skip
        print_private_plan(asked, others, as_json=json, as_csv=csv)
        return
    if not budget and not target_loss:
        raise InputError(NEEDS)
    fitted = Fitted.load(calibration)
    given = given_numbers(precision, mfu, count, price, peak)
    device = asked_device(gpu, budget, given)
    spending = parse_budgets(budget, device)
    device = spending[-1].hardware if spending else device
    budgets = [each.flops for each in spending]
    existing = asked_teachers(teachers, teacher or (), teacher_tokens, teacher_loss, teacher_active_params)
    teacher_vocab = shared_vocabulary(existing) if teacher and vocab is None else None
    if len(budgets) == 2:
        single = {"--tolerance": tolerance, "--store-logits": store_logits}
        refuse(single, "goes with one budget, not with a range")
    check_output(json, csv, store_logits, details)
    question = Question(
        student_params=parse_params(student, "--student") if student else None,
        budget=budgets[-1] if budgets else None,
        target_loss=parse_optional(target_loss, "--target-loss"),
        scenarios=tuple(named(name) for name in scenario or SCENARIOS),
        law=law,
        constraints=parse_constraints(constrain or []),
        teachers=existing,
        family=parse_list(family, "--family", "params"),
        weights=parse_list(weights, "--weights", ""),
        lifetime_tokens=parse_optional(lifetime_tokens, "--lifetime-tokens", "tokens", zero=True) or 0.0,
        student_unique_tokens=parse_optional(unique_tokens, "--unique-tokens", "tokens") or inf,
        teacher_unique_tokens=parse_optional(teacher_unique_tokens, "--teacher-unique-tokens", "tokens")
        or inf,
        flops_per_dollar=device.flops_per_dollar if device else 0.0,
        tolerance=parse_optional(tolerance, "--tolerance"),
        architecture=counting(fitted, flops_rule, context, vocab or teacher_vocab, aspect_ratio),
        extrapolate=extrapolate,
    )
    answer: Plan | Frontier
    if len(budgets) == 2:
        answer = spanned(question, budgets, fitted)
        text = words_of_range(answer, spending, device)
    else:
        answer = plan(question, fitted)
        taught = map(with_options, teacher_notes(teacher or (), teacher_vocab))
        stored = logit_storage_lines(answer, question, fitted, store_logits, "--store-logits")
        text = words(answer, device, spending, [*taught, *stored], details)
    if plot is not None:
        draw_frontier(question, budgets, fitted, plot)
    if json or csv:
        bills = billed(answer, device) if isinstance(answer, Plan) and device else []
        write_numbers(answer, bills, spending, as_json=json)
    else:
        sys.stdout.write(text)


def words_of_range(answer: Frontier, spending: list[Budget], device: Hardware | None) -> str:
    """Return a frontier for the terminal."""
    from scaling.reports.frontier_text import frontier_text

    spans = [f"- budgets: {low.describe()}, to {high.describe()}" for low, high in [spending] if device]
    return frontier_text(answer, spans, get_terminal_size().columns)


def words(
    answer: Plan, device: Hardware | None, spending: list[Budget], remarks: list[str], details: bool
) -> str:
    """Return a plan for the terminal, in brief or with everything."""
    budget = [f"- budget: {spending[0].describe()}"] if spending and device else []
    if details:
        return for_terminal(plan_text(answer, device, [*budget, *remarks]))
    return plan_brief(answer, device, [*budget, *remarks], get_terminal_size().columns)


def write_numbers(
    answer: Plan | Frontier, bills: list[dict[str, Any]], spending: list[Budget], *, as_json: bool
) -> None:
    """Write an answer in full as JSON or, a row for each way, as CSV."""
    if as_json:
        write_json(answer.to_dict() | priced_answer(bills, spending))
        return
    costs = bills or [{}] * len(answer.rows())
    write_csv([row | cost for row, cost in zip(answer.rows(), costs, strict=True)])


def print_plan(answer: Plan) -> None:
    """The verdict, one table, then what to beware of and what was assumed."""
    sys.stdout.write(plan_brief(answer, width=get_terminal_size().columns))


def spanned(question: Question, budgets: list[float], fitted: Fitted) -> Frontier:
    """The frontier between two budgets."""
    import numpy as np

    from scaling.frontiers.frontier import frontier

    return frontier(question, list(np.geomspace(budgets[0], budgets[1], FRONTIER_POINTS)), fitted)


def draw_frontier(question: Question, budgets: list[float], fitted: Fitted, path: Path) -> None:
    """The frontier as a figure; around the budget where there is only one."""
    if not budgets:
        raise InputError("--plot draws loss over compute, so it needs a --budget")
    if len(budgets) == 1:
        reach = 10**PLOTTED_DECADES
        budgets = [budgets[0] / reach, budgets[0] * reach]
    spanned(question, budgets, fitted).plot().write(path, "--plot")
