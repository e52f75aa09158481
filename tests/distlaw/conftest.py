"""One server for all tests of the API and the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def api() -> Iterator[str]:
    """Address of the server."""
    pytest.importorskip("fastapi", reason="needs the extra serve")
    from serving import server

    with server() as url:
        yield url
