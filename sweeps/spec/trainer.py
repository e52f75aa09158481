"""Trainer of a spec: a command of the user's that trains runs in the place of our own loop."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from sweeps.spec.fields import Number, SpecModel

RESULT_FILE = "{out}/result.json"
PLACEHOLDERS = {
    **dict.fromkeys(("job", "out", "checkpoints", "id", "attempt", "role"), "run"),
    **dict.fromkeys(("params", "width", "layers", "heads", "kv_heads", "head_dim", "ffn"), "shape"),
    **dict.fromkeys(("tokens", "steps", "flops", "batch_tokens", "batch_size"), "length"),
    **dict.fromkeys(("learning_rate", "warmup_steps", "warmup_tokens", "weight_decay"), "rules"),
    **dict.fromkeys(("max_grad_norm", "precision", "seed", "data_seed"), "rules"),
    **dict.fromkeys(("corpus", "tokenizer", "train_file", "heldout_file", "vocab", "context"), "text"),
    **dict.fromkeys(("teacher", "teacher_loss", "teacher_params", "method", "temperature"), "teacher"),
    **dict.fromkeys(("gpus", "cpus", "nodes", "node"), "resources"),
}
"""Placeholders of a command, each with the part of the job that it is of."""
Role = Literal["supervised", "teachers", "students"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Fields of a spec that hold grids."""
SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(?:API|ACCESS|PRIVATE)_?KEY)(?:_|$)", re.I
)
SECRET_OPTION = re.compile(
    r"(?:^|[\s'\"])(?P<name>-{0,2}(?:token|(?:[A-Za-z]\w*[._-])*?(?:(?:hf|hub|hugging_?face|auth|access|api|bearer|"
    r"wandb|github|login)[_-]?token|secret(?:[_-]?key)?|passw(?:or)?d|credentials?|(?:api|access|private)[_-]?key)))"
    r"(?:=|\s+)['\"]?(?P<value>[^\s'\"]{6,})",
    re.I,
)
"""Option, or variable of a shell's line, that is named like a secret, with its value."""
KEY = re.compile(r"\b(?:hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9_-]{20}|gh[pousr]_[A-Za-z0-9]{20}|AKIA[A-Z0-9]{16})")
"""Beginning of keys of Hugging Face, OpenAI, GitHub and AWS."""
FORMS = ("hf", "jsonl", "csv", "tensorboard", "regex", "log")
"""Forms of logs, of which ``collect`` names one."""


class Collect(SpecModel):
    """Log of a run from which loss, size and tokens are read, where the command writes no result.json."""

    hf: str | None = None
    """Path of ``trainer_state.json`` of the Hugging Face Trainer, and of all that build on it."""
    jsonl: str | None = None
    """Path of a file with a JSON object on each line."""
    csv: str | None = None
    """Path of a table with a header."""
    tensorboard: str | None = None
    """Directory with event files of TensorBoard."""
    regex: str | None = None
    """Regular expression searched in the command's output, with groups named ``loss``, ``tokens`` ..."""
    log: str | None = None
    """Path of a text log of Megatron-LM, torchtitan, nanochat or OLMo-core."""
    map: dict[str, str] = {}
    """Names in the log of ``loss``, ``tokens``, ``params``, ``flops``, ``loss_se``; dots go into objects."""
    take: Literal["last", "best", "decayed"] = "last"
    """Evaluation that counts: the last, that of the lowest loss, or the last after the learning rate's
    decay."""
    loss_unit: Literal["nats/token", "bits/token", "bits/byte", "perplexity"] = "nats/token"
    """Unit of the loss, in tokens of the corpus's tokenizer."""
    bytes_per_token: Number | None = Field(None, gt=0)
    """Bytes per token, for a loss in bits/byte."""
    tokens_per_step: str = ""
    """Tokens of one step, where the log counts steps: a number, or names of settings to multiply."""
    loss_on: str | None = None
    """Text on which the loss was measured, in words for the runs table."""

    @model_validator(mode="after")
    def _one_form(self) -> Collect:
        given = [name for name in FORMS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(FORMS)}; found {' and '.join(given) or 'none'}")
        if unknown := sorted(set(self.map) - set(COLLECTED)):
            raise ValueError(f"map: no column {unknown[0]!r}; known: {', '.join(COLLECTED)}")
        if (self.loss_unit == "bits/byte") != (self.bytes_per_token is not None):
            raise ValueError("loss_unit bits/byte and bytes_per_token go together; give both or neither")
        if self.regex is not None:
            self._check_pattern(self.regex)
        elif found := next(_faults([getattr(self, given[0])]), None):
            raise ValueError(f"{given[0]}: {found}")
        return self

    @staticmethod
    def _check_pattern(text: str) -> None:
        try:
            groups = set(re.compile(text).groupindex)
        except re.error as error:
            raise ValueError(f"regex: {text!r} is not a regular expression ({error})") from None
        if unknown := sorted(groups - set(COLLECTED)):
            raise ValueError(f"regex: no column {unknown[0]!r}; groups may be {', '.join(COLLECTED)}")
        if "loss" not in groups:
            raise ValueError("regex: it needs a group named loss, such as 'val loss (?P<loss>[-+.0-9eE]+)'")

    @property
    def form(self) -> str:
        """The one of :data:`FORMS` that is given."""
        return next(name for name in FORMS if getattr(self, name) is not None)


COLLECTED = ("loss", "tokens", "params", "flops", "loss_se")
"""Numbers that are read from a log."""


class Trainer(SpecModel):
    """Command that trains one run, started in a process group of its own on each node of the step."""

    command: list[str] | None = Field(None, min_length=1)
    """Program and arguments, without a shell; ``{...}`` stands for a value of the run. Without a command the
    runs are trained elsewhere (``distlaw sweep jobs`` and ``record``)."""
    version: str = Field(min_length=1)
    """Version of the program, such as ``git:3f2a91c``; a new one trains all its runs anew."""
    env: dict[str, str] = {}
    """Environment variables, beside those of the process that starts it; never secrets."""
    model: str | None = None
    """Directory in Hugging Face layout that the command leaves, such as ``{out}/final``; result.json may name
    it too."""
    collect: Collect | None = None
    """Log to read in the place of ``{out}/result.json``."""
    grace_seconds: Number = Field(8.0, ge=0, le=3600)
    """Seconds between SIGTERM and SIGKILL when a run is stopped, for the command to write a checkpoint."""

    @model_validator(mode="before")
    @classmethod
    def _list_of_words(cls, given: Any) -> Any:
        if isinstance(given, str):
            own = "our own trainer is the default: leave this out" if given == "distlaw" else "name a command"
            raise ValueError(f"expected fields such as command and version, not {given!r}; {own}")
        if isinstance(given, dict) and isinstance(given.get("command"), str):
            raise ValueError(
                f"command: expected a list of words, such as [python, train.py, '{{job}}'], not "
                f"{given['command']!r}; a line for a shell is [sh, -c, '...']"
            )
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Trainer:
        texts = [*(self.command or ()), *self.env.values(), *([self.model] if self.model else [])]
        if found := next(_faults(texts), None):
            raise ValueError(found)
        if name := next((name for name in self.env if SECRET.search(name)), None):
            raise ValueError(
                f"env: {name} looks like a secret, which would be kept in the store; export it where the "
                "sweep's processes start, whose environment every command has"
            )
        if name := next(_secrets_in(self.command or ()), None):
            raise ValueError(
                f"command: {name} looks like a secret, which would be kept in the store; export it where "
                "the sweep's processes start, and let the command read it from its environment"
            )
        if name := next((name for name in self.env if name.startswith("DISTLAW_") or not name), None):
            raise ValueError(f"env: {name or 'an empty name'} is not for you to set")
        if name := next((name for name in self.env if {"=", "\0"} & set(name)), None):
            raise ValueError(f"env: {name!r} is no name of a variable; it holds '=' or a zero character")
        return self

    @property
    def name(self) -> str:
        """Short name for people: its program, but for interpreters and launchers."""
        words = [word for word in self.command or ["another trainer"] if not word.startswith("-")]
        scripts = [word for word in words if word.endswith((".py", ".sh"))]
        return Path((scripts or words)[0]).name

    @property
    def identity(self) -> dict[str, Any]:
        """Fields that change what a run measures; the environment and the grace period do not."""
        return {
            "command": self.command,
            "version": self.version,
            "model": self.model,
            "collect": self.collect.model_dump(exclude_defaults=True) if self.collect else None,
        }

    @property
    def placeholders(self) -> set[str]:
        """Placeholders that its texts name."""
        return {name for text in (*(self.command or ()), *self.env.values()) for name in _names(text)}


class TrainersByRole(SpecModel):
    """Trainers of the fields of a sweep; our own where none is given."""

    supervised: Trainer | None = None
    teachers: Trainer | None = None
    students: Trainer | None = None


def _faults(texts: list[str]) -> Iterator[str]:
    """Yield the faults of texts with placeholders."""
    for text in texts:
        if "\0" in text:
            yield f"{text!r} holds a zero character"
        try:
            names = list(_names(text))
        except ValueError:
            yield f"{text!r} has a single brace; write {{{{ and }}}} for braces that are no placeholder"
            continue
        for name in names:
            if name not in PLACEHOLDERS:
                close = get_close_matches(name, PLACEHOLDERS, n=1)
                meant = f"; did you mean {{{close[0]}}}?" if close else f"; known: {', '.join(PLACEHOLDERS)}"
                yield f"{{{name}}} in {text!r} is no placeholder{meant}; other braces are written {{{{ }}}}"


def _secrets_in(command: Sequence[str]) -> Iterator[str]:
    """Yield the names of options that seem to hold secrets, and the beginnings of keys; never a whole one."""
    text = " ".join(command)
    for found in SECRET_OPTION.finditer(text):
        value = found["value"]
        reference = value.startswith(("$", "{", "/", "~", ".", "-"))  # a variable, a placeholder, a file
        if not reference and not value.replace(".", "", 1).isdigit():
            yield found["name"]
    yield from (f"{found[0][:4]}..." for found in KEY.finditer(text))


def _names(text: str) -> Iterator[str]:
    for _, name, layout, conversion in Formatter().parse(text):
        if name is not None:
            yield name + (f"!{conversion}" if conversion else "") + (f":{layout}" if layout else "")


def _form_of_trainer(given: Any) -> str:
    if isinstance(given, TrainersByRole):
        return "by role"
    keys = given if isinstance(given, dict) else ()
    return "by role" if keys and not {"command", "version"} & set(keys) else "one"


OneTrainer = Annotated[
    Annotated[Trainer, Tag("a command")] | Annotated[Literal["distlaw"], Tag("a name")],
    Discriminator(lambda given: "a name" if isinstance(given, str) else "a command"),
]
SweepTrainer = Annotated[
    Annotated[Trainer, Tag("one")] | Annotated[TrainersByRole, Tag("by role")],
    Discriminator(_form_of_trainer),
]
TRAINERS: dict[str, type[SpecModel]] = {
    "one": Trainer,
    "by role": TrainersByRole,
    "a command": Trainer,
    "a name": Trainer,
}
"""Forms of a trainer, by the tags that messages must pass over."""
