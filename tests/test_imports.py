"""Planning and fitting stay light, and what is missing is named."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HEAVY = {"torch", "ray", "transformers", "tokenizers", "fastapi", "uvicorn"}


def loaded_by(code: str) -> set[str]:
    script = (
        f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        (
            "from scaling import Question, plan",
            HEAVY | {"pandas", "matplotlib", "typer", "pydantic", "fsspec"},
        ),
        (
            "import scaling\nassert 'scaling.perceptron' not in sys.modules\nimport scaling.perceptron.charts",
            HEAVY | {"pandas", "matplotlib", "typer", "pydantic", "fsspec"},
        ),
        ("from fits import read_runs", HEAVY | {"typer", "fsspec"}),
        (
            "import fits, sweeps.data.corpus, sweeps.train.loop",  # what a run needs
            {"pandas", "scipy", "pyarrow", "matplotlib", "transformers", "ray"},
        ),
        ("import sweeps.watch.status, sweeps.watch.timeline", {"torch", "ray", "transformers", "pandas"}),
        ("import distlaw.cli", HEAVY | {"pandas", "matplotlib", "pydantic", "fsspec"}),
        (
            "import distlaw.cli\nfrom typer.testing import CliRunner\n"
            "result = CliRunner().invoke(distlaw.cli.app, ['plan', '--student', '1B', '--budget', '1e21'])\n"
            "assert result.exit_code == 0, result.output\n"
            "assert not {'scaling.figures', 'scaling.frontiers', 'distlaw.commands.fit'} & set(sys.modules)",
            HEAVY | {"pandas", "matplotlib", "fsspec"},  # Typer reads options with pydantic
        ),
    ],
    ids=["scaling", "perceptron lab", "fits", "training", "status", "distlaw", "distlaw plan"],
)
def test_light_imports(code: str, absent: set[str]) -> None:
    loaded = loaded_by(code)
    assert "numpy" in loaded or code == "import distlaw.cli"
    assert not loaded & absent


def test_a_missing_extra_is_named() -> None:
    """Without ray, planning works and a sweep says what to install."""
    hide = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest)\n"
        "sys.modules['ray'] = None\n"
    )
    call = "sys.argv = ['distlaw', 'sweep', 'plan', 'quickstart']\nfrom distlaw.cli import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", hide + call], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "error: sweeps need ray: pip install 'distlaw[sweeps]'"


def module_level_imports(path: Path) -> set[str]:
    """Modules that a file imports when it is imported itself, so nothing inside functions or for types alone."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.If | ast.Try) and "TYPE_CHECKING" not in ast.unparse(node).split("\n")[0]:
            waiting += [*node.body, *node.orelse]
    return found


def test_no_two_modules_import_each_other() -> None:
    root = Path(__file__).parents[1]
    paths = [
        path for floor in ("scaling", "fits", "sweeps", "distlaw") for path in (root / floor).rglob("*.py")
    ]
    modules = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    graph = {name: module_level_imports(path) & modules.keys() for name, path in modules.items()}
    assert sum(map(len, graph.values())) > len(modules)
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the modules of a loop


def test_no_two_test_modules_share_a_name() -> None:
    """pytest imports them by name alone, and refuses to collect the second."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}
