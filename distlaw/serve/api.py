"""The HTTP API: one route per kind of question, typed, and the page that asks them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from pydantic_core import to_json

from distlaw.serve import answers, design
from distlaw.serve.limits import Hosts, Limits, refusal
from distlaw.serve.memory import Memory, request_key
from distlaw.serve.requests import (
    LARGEST_BODY,
    Asked,
    CompareRequest,
    DesignRequest,
    FrontierRequest,
    MapRequest,
    PlanRequest,
    PredictRequest,
    fitted_by,
)
from distlaw.serve.strict_requests import StrictRoute
from distlaw.serve.workers import Busy, Workers, follow_parent
from scaling.calibration.calibration import published
from scaling.calibration.ranking import rank_calibrations, ranking_data
from scaling.costs.hardware import device_table as hardware_table
from scaling.errors import InputError
from scaling.open_models import open_models
from scaling.units import check_params, parse_quantity, parse_tokens

STATIC = Path(__file__).with_name("static")
MOST_REQUESTS = 256
"""Being read or answered at once; more are told to come back."""
WAITING = 64
"""Long questions in the queue."""
SECONDS_TO_SEND, SECONDS_TO_ANSWER = 10.0, 60.0
REMEMBERED = 32 * 2**20
"""Bytes of answers that are kept, to be given again."""
GARBAGE = 20_000
"""Objects made since garbage was last collected, after which it is again: those of about ten plans."""
R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


class Problem(BaseModel):
    """Reason why there is no answer, in a sentence that names the field."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Not JSON"},
    413: {"model": Problem, "description": "Too large"},
    422: {"model": Problem, "description": "A question without an answer"},
    503: {"model": Problem, "description": "Busy; Retry-After says when to come back"},
}


def create_app(hosts: Sequence[str] = ("*",), processes: int = 1) -> FastAPI:
    """The application; ``hosts`` are the names under which browsers may reach it.

    Long questions are answered in ``processes`` of their own.
    """
    workers = Workers(processes, WAITING, SECONDS_TO_ANSWER)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follow_parent()
        for name in published():
            answers.calibrated(Asked(calibration=name, uncertainty=False))
        gc.freeze()  # what is loaded stays: looking through it for garbage would delay whoever asks meanwhile
        gc.set_threshold(GARBAGE)
        yield
        workers.close()

    app = FastAPI(
        title="distlaw",
        version=version("distlaw"),
        summary="Distil or train directly? Ask a distillation scaling law.",
        docs_url=None,  # they load scripts from a foreign host
        redoc_url=None,
        lifespan=lifespan,
        responses=PROBLEMS,
    )
    app.router.route_class = StrictRoute
    app.add_middleware(Hosts, hosts=hosts)
    app.add_middleware(
        Limits, largest_body=LARGEST_BODY, most_requests=MOST_REQUESTS, seconds_to_send=SECONDS_TO_SEND
    )
    _add_problems(app)
    _add_questions(app, workers)
    _add_calibrations(app, workers)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return app


def _add_questions(app: FastAPI, workers: Workers) -> None:
    @app.post("/plan", response_model=answers.PlanAnswer)
    async def plan(request: PlanRequest) -> Response:
        """Distil or train directly: the best way under each scenario, or with each known teacher."""
        return await answered(answers.answer_plan, request, _is_point(request))

    @app.post("/predict", response_model=answers.PredictAnswer)
    async def predict(request: PredictRequest) -> Response:
        """Losses of one student, alone and with a teacher."""
        return await answered(answers.answer_predict, request, isinstance(request.calibration, str))

    @app.post("/compare", response_model=answers.CompareAnswer)
    async def compare(request: CompareRequest) -> Response:
        """One question under every law of several calibrations."""
        return await answered(answers.answer_compare, request)

    @app.post("/frontier", response_model=answers.FrontierAnswer)
    async def frontier(request: FrontierRequest) -> Response:
        """The best loss at every budget of a range, and where direct training catches up."""
        return await answered(answers.answer_frontier, request)

    @app.post("/map", response_model=answers.MapAnswer)
    async def over_sizes(request: MapRequest) -> Response:
        """Distilling against direct training over budgets and student sizes."""
        return await answered(answers.answer_map, request)

    @app.post("/design", response_model=design.DesignAnswer)
    async def design_of(request: DesignRequest) -> Response:
        """Design of a sweep for a question: its runs, and what they are expected to show over money."""
        return await answered(design.answer_design, request)

    memory, turn = Memory(REMEMBERED), asyncio.Lock()

    async def at_once(answer: Callable[[R], dict[str, Any]], request: R) -> bytes:
        """Answer in this process; after each question the loop sends, reads and accepts connections."""
        async with turn:
            await asyncio.sleep(0)
            return _written(answer, request)

    async def answered(answer: Callable[[R], dict[str, Any]], request: R, quick: bool = False) -> Response:
        key = request_key(answer.__name__, request.model_dump_json())
        known = memory.get(key)
        if known is None:
            known = await (at_once(answer, request) if quick else workers.run(_written, answer, request))
            memory.put(key, known)
        return _json(known)


def _add_calibrations(app: FastAPI, workers: Workers) -> None:
    @app.get("/calibrations", response_model=list[answers.CalibrationSummary])
    async def calibrations() -> Response:
        """The published calibrations."""
        return _json(_bytes([answers.calibration_summary(fitted_by(name)) for name in published()]))

    @app.get("/ranking")
    async def ranking(
        student_params: str, student_tokens: str, text: str = "", tokenizer: str = ""
    ) -> dict[str, Any]:
        """Published calibrations by how well they fit a size, tokens (or ``20:1``), text and tokenizer."""
        params = parse_quantity(student_params, "student_params", "params")
        check_params(params, "student_params")
        tokens = parse_tokens(student_tokens, params, "student_tokens")
        return ranking_data(rank_calibrations(params, tokens, text, tokenizer), params, tokens, text)

    @app.get("/calibrations/{name}")
    async def calibration(name: str) -> Response:
        """The file of a published calibration."""
        return _json(fitted_by(name).to_json().encode())

    @app.post("/calibrations/check", response_model=answers.CalibrationSummary)
    async def check(content: dict[str, Any]) -> Response:
        """Check a calibration's file and summarize it; nothing is kept."""
        return _json(await workers.run(_written, answers.check_upload, content))

    @app.get("/hardware")
    async def hardware() -> list[dict[str, str | float | None]]:
        """Devices that plans can be priced on."""
        return [
            {
                "name": row.name,
                "precision": row.precision,
                "peak_flops": row.peak_flops,
                "memory_bytes": row.memory_bytes,
                "dollars_per_hour": row.dollars_per_hour,
                "date": row.date,
                "source": row.source,
            }
            for row in hardware_table()
        ]

    @app.get("/teachers")
    async def teachers() -> list[dict[str, str | float | None]]:
        """Open models that a catalogue of teachers may name: sizes, vocabularies and training tokens."""
        return [asdict(model) for model in open_models()]


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    async def unanswerable(_: Request, error: InputError) -> Response:
        return refusal(422, str(error))

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Response:
        return refusal(503, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        if "json" not in request.headers.get("Content-Type", ""):
            return refusal(400, "not JSON: send the header Content-Type: application/json along")
        problems = error.errors()
        if problems[0]["type"] == "json_invalid":
            return refusal(400, f"not JSON: {problems[0]['ctx']['error']}")
        return refusal(422, "; ".join(dict.fromkeys(_sentence(problem) for problem in problems[:5])))

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:
        return refusal(500, "the server failed on this question; its log says how")


def _sentence(problem: dict[str, Any]) -> str:
    """Pydantic's finding with the name of the field."""
    where = [str(part) for part in problem["loc"] if part != "body" and not _is_branch(part)]
    found = problem["input"]
    said = f", not {found!r:.60}" if isinstance(found, str | int | float) else ""
    text = problem["msg"].removeprefix("Value error, ")
    text += "" if repr(found) in text else said
    return f"{'.'.join(where) or 'request'}: {text[:1].lower()}{text[1:]}"


def _is_branch(part: object) -> bool:
    """Return whether a part of a location names an alternative of a union rather than a field."""
    return (isinstance(part, str) and not part.isidentifier()) or part in ("float", "str", "Teacher")


def _is_point(request: PlanRequest) -> bool:
    """Return whether the answer takes milliseconds, so that it needs no process of its own."""
    longer = request.uncertainty or request.family or request.teachers or request.tolerance is not None
    known = isinstance(request.calibration, str) and None not in (request.student_params, request.budget)
    return known and not longer


def _written(answer: Callable[[T], object], request: T) -> bytes:
    return _bytes(answer(request))


def _bytes(content: object) -> bytes:
    """Return JSON, with null in place of numbers that it cannot hold."""
    return to_json(content, inf_nan_mode="null")


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
