"""Requests whose JSON names each key once; others are refused, for one of their two values would be lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from scaling.errors import InputError
from scaling.unique_keys import refuse_duplicate_keys


class StrictRequest(Request):
    """Request whose body holds no key twice."""

    async def json(self) -> Any:
        """Return the body; a key that an object has twice is a problem of the question (422)."""
        try:
            return json.loads(await self.body(), object_pairs_hook=refuse_duplicate_keys("the question"))
        except InputError as error:
            raise HTTPException(422, str(error)) from None


class StrictRoute(APIRoute):
    """Route that reads its questions as :class:`StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, given such a request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict
