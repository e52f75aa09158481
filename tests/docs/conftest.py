from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"


@pytest.fixture(scope="session")
def command_pages() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOOKS))
        import command_pages

        yield command_pages


@pytest.fixture(scope="session")
def outputs(command_pages: ModuleType) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOOKS))
        import outputs

        yield outputs


@pytest.fixture(scope="session")
def texts(outputs: ModuleType) -> list[Path]:
    return outputs.texts()
