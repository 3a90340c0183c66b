"""The look-up over HTTP: ``python -m recsys_ops.serving.api``; needs no Airflow.

Redis is found by the environment variable that Airflow would read (``AIRFLOW_CONN_RECSYS_REDIS``, as JSON), storage as by the
worker. Several processes: ``uvicorn --factory recsys_ops.serving.api:application --workers 4 --no-access-log``; each loads the
live version and counts requests for itself.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal, TypeVar

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect

from recsys_ops.errors import ServingError, SettingsError
from recsys_ops.serving.api_auth import KEY, access_checks
from recsys_ops.serving.client import connect_async, from_environment
from recsys_ops.serving.live_model import LiveModel, LiveModels, Product
from recsys_ops.serving.store import Answer, AsyncRecommendationStore
from recsys_ops.settings import ApiSettings, Settings, load_settings
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

T = TypeVar("T")
_REDIS_TIMEOUT_S = 0.5
_PATIENCE_S = 1.0  # for Redis' answer, the wait for a turn and a second attempt included
_AT_ONCE = 90  # redis-py has 100 connections, and refuses the question that needs one more
_RETRY_AFTER_S = 2
_LARGEST_BODY = 1 << 20
_LARGEST_BASKET = 1000
_UNKNOWN = Product(None, None, None)

Details = Annotated[
    Literal["true", "false"], Query(description="Items as objects with title, category and price.")
]


class Item(BaseModel):
    """What the catalogue of the version's day says; null what it does not."""

    id: str
    title: str | None
    category: str | None
    price: float | None


class Recommendations(BaseModel):
    """Best first, all of one version; the items' source is `popular` where the version has no list for what was asked."""

    items: list[str] | list[Item]
    source: Literal[
        "personal", "similar", "bought_together", "category", "trending", "popular", "fold_in"
    ]
    version: str


class Version(BaseModel):
    version: str


class Health(BaseModel):
    """version : live in Redis · model : the version that fold-in and details come from; null until one is loaded"""

    version: str
    model: str | None


class Problem(BaseModel):
    detail: str


class _Text(Convertor[str]):
    """Any id: of Starlette's own converters one stops at a slash, the other at a line break."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("text", _Text())


def application() -> FastAPI:
    """The app as the settings and the environment describe it. Raises SettingsError."""
    settings = load_settings()
    client = connect_async(
        from_environment(settings.serving.conn_id), timeout_s=_REDIS_TIMEOUT_S, retries=1
    )
    store = AsyncRecommendationStore(client, settings.serving)
    return create_app(
        settings, store, LiveModels(Storage(settings.storage.root)), os.environ.get(KEY)
    )


def create_app(
    settings: Settings, store: AsyncRecommendationStore, models: LiveModels, key: str | None = None
) -> FastAPI:
    """The app over a store and the live version's files.

    key : what `serving.api.require_key` asks for

    Raises SettingsError when a key is required and there is no usable one.
    """
    turns = asyncio.Semaphore(_AT_ONCE)
    top_n = settings.lists.top_n
    cut = Query(ge=1, le=top_n, description="At most so many items.")

    class Basket(BaseModel):
        """Items that somebody looks at or has in the cart; unknown ones are skipped."""

        model_config = ConfigDict(strict=True, extra="forbid")

        items: list[str] = Field(max_length=_LARGEST_BASKET)
        n: Annotated[int, BeforeValidator(_whole)] = Field(default=top_n, ge=1, le=top_n)

    async def ask(read: Callable[..., Awaitable[T]], *of: str | None) -> T:
        try:
            async with asyncio.timeout(_PATIENCE_S), turns:
                return await read(*of)
        except TimeoutError:
            raise ServingError(
                f"Redis has not answered within {_PATIENCE_S} s: check the server and its connection"
            ) from None
        except (AttributeError, ValueError) as error:
            # what redis-py lets out when a cluster's node goes away, and what decoding raises for damaged fields
            said = f"{type(error).__name__}: {error}"
            raise ServingError(
                f"what Redis has cannot be read: check its nodes, or publish again ({said})"
            ) from error

    def respond(request: Request, answer: Answer, n: int, details: str) -> Response:
        """The answer as JSON. Its tag is the version: one URL has one body a version, except while details are missing."""
        models.notice(answer.version)
        headers = {"ETag": f'"{answer.version}"', "Cache-Control": "private, no-cache"}
        if (known := request.headers.get("if-none-match")) and _matches(known, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        model = models.current
        if details == "true" and (
            model is None or model.version != answer.version or model.products is None
        ):
            model, headers = None, {"Cache-Control": "no-store"}
        return _json(
            _body(answer.items[:n], answer.source, answer.version, details, model), headers
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with suppress(ServingError):
            models.notice(await ask(store.version))
        yield

    app = FastAPI(
        title="recsys-ops",
        summary="What to show to whom, as the live model version says.",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    api = settings.serving.api
    routes = APIRouter(
        dependencies=access_checks(api, key),
        responses=_refusals(api) | {422: {"model": Problem}, 503: _AWAY},
    )
    reads: dict[str, Any] = {"response_model": Recommendations, "responses": {304: _UNCHANGED}}

    @routes.get("/users/{user_id:text}/recommendations", **reads)
    async def recommendations(
        request: Request, user_id: str, n: Annotated[int, cut] = top_n, details: Details = "false"
    ) -> Response:
        """A user's items, `personal`; the `popular` ones for a stranger."""
        return respond(request, await ask(store.recommendations, user_id), n, details)

    @routes.get("/items/{item_id:text}/similar", **reads)
    async def similar(
        request: Request, item_id: str, n: Annotated[int, cut] = top_n, details: Details = "false"
    ) -> Response:
        """What is like an item, `similar`; the `popular` items where nothing is known of it."""
        return respond(request, await ask(store.similar, item_id), n, details)

    @routes.get("/items/{item_id:text}/bought-together", **reads)
    async def bought_together(
        request: Request, item_id: str, n: Annotated[int, cut] = top_n, details: Details = "false"
    ) -> Response:
        """What is bought together with an item, `bought_together`; the `popular` items where nothing is known of it."""
        return respond(request, await ask(store.bought_together, item_id), n, details)

    @routes.get("/popular", **reads)
    async def popular(
        request: Request,
        category: str | None = None,
        n: Annotated[int, cut] = top_n,
        details: Details = "false",
    ) -> Response:
        """The popular items of a `category`, or of all: also where the category is unknown, then as `popular`."""
        return respond(request, await ask(store.popular, category), n, details)

    @routes.get("/trending", **reads)
    async def trending(
        request: Request, n: Annotated[int, cut] = top_n, details: Details = "false"
    ) -> Response:
        """What stands out most against four weeks ago, `trending`; the `popular` items where nothing does."""
        return respond(request, await ask(store.trending), n, details)

    basket_schema = {
        "required": True,
        "content": {"application/json": {"schema": Basket.model_json_schema()}},
    }

    @routes.post(
        "/recommendations",
        response_model=Recommendations,
        responses={
            413: {"model": Problem, "description": f"The body has more than {_LARGEST_BODY} bytes."}
        },
        openapi_extra={"requestBody": basket_schema},
    )
    async def fold_in(request: Request, details: Details = "false") -> Response:
        """For a basket instead of a user: what a training would give to a user of these items, without them, as `fold_in`.

        The items weigh like one event `cart` of today each. Where none of them is known to the model: the `popular` ones.
        """
        try:
            basket = Basket.model_validate_json(await _content(request))
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
        stranger = await ask(store.popular)
        models.notice(stranger.version)
        model = models.current
        if model is None:
            raise ServingError(f"the files of version {stranger.version} are not loaded yet")
        headers = {"Cache-Control": "no-store"}
        found = await asyncio.to_thread(model.fold_in.recommend, basket.items, basket.n)
        if found:
            return _json(_body(found, "fold_in", model.version, details, model), headers)
        others = [item for item in stranger.items if item not in set(basket.items)][: basket.n]
        known = model if model.version == stranger.version else None
        return _json(_body(others, "popular", stranger.version, details, known), headers)

    @routes.get("/version", response_model=Version)
    async def version() -> Response:
        """The version that is live."""
        return _json({"version": await ask(store.version)}, {"Cache-Control": "no-store"})

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=Health, responses={503: _AWAY})
    async def health() -> Response:
        """Whether there is something to answer; needs no key."""
        live = await ask(store.version)
        models.notice(live)
        return _json(
            {"version": live, "model": models.current and models.current.version},
            {"Cache-Control": "no-store"},
        )

    app.include_router(routes)

    @app.exception_handler(ServingError)
    async def away(_: Request, error: ServingError) -> Response:
        log.warning("%s", error)
        headers = {"Retry-After": str(_RETRY_AFTER_S), "Cache-Control": "no-store"}
        return _json(
            {"detail": "nothing can be read at the moment: try again"}, headers, status=503
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        said = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"[:200]
            for problem in error.errors()[:5]
        )
        return _json({"detail": said}, {}, status=422)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it; without it the log has a traceback

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> Response:
        return _json({"detail": "this is a fault of the service: see its log"}, {}, status=500)

    return app


_RETRY = {
    "Retry-After": {
        "description": "Seconds.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_AWAY: dict[str, Any] = {
    "model": Problem,
    "description": "Redis is away or empty, or no version is loaded.",
    "headers": _RETRY,
}
_UNCHANGED: dict[str, Any] = {"description": "The version is the one in If-None-Match."}


def _refusals(api: ApiSettings) -> dict[int | str, dict[str, Any]]:
    """How the guards' refusals are documented."""
    found: dict[int | str, dict[str, Any]] = {}
    if api.require_key:
        found[401] = {"model": Problem, "description": "The key is missing or wrong."}
    if api.requests_per_minute:
        found[429] = {"model": Problem, "description": "Too many requests.", "headers": _RETRY}
    return found


def _whole(number: Any) -> Any:
    """JSON's 3.0 is an integer as well."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


async def _content(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > _LARGEST_BODY:
            raise HTTPException(
                413, f"the body has more than {_LARGEST_BODY} bytes: send fewer items"
            )
    return bytes(content)


def _matches(known: str, tag: str) -> bool:
    """Whether If-None-Match names the tag; its comparison takes weak tags for strong ones (RFC 9110, 13.1.2)."""
    return known.strip() == "*" or tag in (
        each.strip().removeprefix("W/") for each in known.split(",")
    )


def _body(
    items: Sequence[str], source: str, version: str, details: str, model: LiveModel | None
) -> dict[str, Any]:
    """model : of this version, None where none is loaded; all details are then null"""
    shown = [_detailed(item, model) for item in items] if details == "true" else items
    return {"items": shown, "source": source, "version": version}


def _detailed(item: str, model: LiveModel | None) -> dict[str, Any]:
    product = ((model and model.products) or {}).get(item, _UNKNOWN)
    return {
        "id": item,
        "title": product.title,
        "category": product.category,
        "price": product.price,
    }


def _json(content: Any, headers: dict[str, str], status: int = 200) -> Response:
    # not through a model: what is sent is built here, and the schema's tests hold it to the schema
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")


def main() -> int:
    """Serve until stopped; 1 when the settings do not allow it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        app, api = application(), load_settings().serving.api
    except SettingsError as error:
        log.error("%s", error)
        return 1
    uvicorn.run(app, host=api.host, port=api.port, server_header=False, access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
