"""The routes of the lookup service."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.convertors import Convertor, register_url_convertor

from recsys_ops.errors import ServingError
from recsys_ops.serving.api_schema import (
    MAX_BODY_BYTES,
    NOT_MODIFIED,
    TOO_LARGE,
    UNAVAILABLE,
    Basket,
    Details,
    Health,
    Recommendations,
    Version,
    basket_model,
)
from recsys_ops.serving.live_model import CatalogueItem, LiveModel, LiveModels
from recsys_ops.serving.store import Answer, AsyncRecommendationStore

T = TypeVar("T")
_READ_TIMEOUT_S = 1.0  # with the wait for a free slot and the second attempt
_MAX_PARALLEL_READS = 90  # redis-py raises an error for a 101st connection
_NOT_IN_CATALOGUE = CatalogueItem(None, None, None)


class _AnyText(Convertor[str]):
    """Any id in a path. Starlette's own converters stop at a slash or at a line break."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("text", _AnyText())


class Lookup:
    """What the routes share: the store, the live model, and the limits.

    top_n : the length of the longest list
    """

    def __init__(self, store: AsyncRecommendationStore, models: LiveModels, top_n: int) -> None:
        self.store = store
        self.models = models
        self.basket_model = basket_model(top_n)
        self._free_slots = asyncio.Semaphore(_MAX_PARALLEL_READS)

    async def read(self, method: Callable[..., Awaitable[T]], *arguments: str | None) -> T:
        """Call a method of the store. Raises ServingError, after 1 s at the latest."""
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S), self._free_slots:
                return await method(self.store, *arguments)
        except TimeoutError:
            raise ServingError(
                f"Redis did not answer within {_READ_TIMEOUT_S} s: "
                "check the server and the connection to it"
            ) from None
        except (AttributeError, ValueError) as error:
            # redis-py when a node of a cluster is lost; decoding, when a field is damaged
            raise ServingError(
                "the content of Redis cannot be read: check its nodes, or publish again "
                f"({type(error).__name__}: {error})"
            ) from error


def _lookup(request: Request) -> Lookup:
    # not a dependency: FastAPI needs 10 µs to resolve one
    lookup: Lookup = request.app.state.lookup
    return lookup


async def _user(user_id: str) -> tuple[str]:
    return (user_id,)


async def _item(item_id: str) -> tuple[str]:
    return (item_id,)


async def _category(category: str | None = None) -> tuple[str | None]:
    return (category,)


async def _nothing() -> tuple[()]:
    return ()


# path, method of the store, its arguments, description
_LISTS: Sequence[tuple[str, Callable[..., Awaitable[Answer]], Callable[..., Any], str]] = (
    (
        "/users/{user_id:text}/recommendations",
        AsyncRecommendationStore.recommendations,
        _user,
        "A user's items, `personal`; the `popular` items for an unknown user.",
    ),
    (
        "/items/{item_id:text}/similar",
        AsyncRecommendationStore.similar,
        _item,
        "The items most similar to an item, `similar`; "
        "the `popular` items where the version has no such list.",
    ),
    (
        "/items/{item_id:text}/bought-together",
        AsyncRecommendationStore.bought_together,
        _item,
        "The items that are bought together with an item, `bought_together`; "
        "the `popular` items where the version has no such list.",
    ),
    (
        "/popular",
        AsyncRecommendationStore.popular,
        _category,
        "The popular items of a `category`. "
        "Without a category, or with an unknown one, the `popular` items of all categories.",
    ),
    (
        "/trending",
        AsyncRecommendationStore.trending,
        _nothing,
        "The items that stand out most against the 28 days before, `trending`; "
        "the `popular` items where no item does.",
    ),
)


def list_routes(top_n: int) -> APIRouter:
    """The routes of `_LISTS`.

    top_n : the length of the longest list
    """
    routes = APIRouter()
    for path, method, arguments, description in _LISTS:
        routes.add_api_route(
            path,
            _list_endpoint(method, arguments, top_n),
            name=method.__name__,
            description=description,
            response_model=Recommendations,
            responses=NOT_MODIFIED,
        )
    return routes


def _list_endpoint(
    method: Callable[..., Awaitable[Answer]], arguments: Callable[..., Any], top_n: int
) -> Callable[..., Awaitable[Response]]:
    async def answer_list(
        request: Request,
        about: Annotated[Sequence[str | None], Depends(arguments)],
        n: Annotated[int, Query(ge=1, le=top_n, description="At most this many items.")] = top_n,
        details: Details = "false",
    ) -> Response:
        lookup = _lookup(request)
        answer = await lookup.read(method, *about)
        return _list_response(request, lookup.models, answer, n, details)

    return answer_list


def _list_response(
    request: Request, models: LiveModels, answer: Answer, n: int, details: str
) -> Response:
    """The list as JSON. Its ETag is the version.

    A URL has one body a version, except while the details are not loaded: then there is no ETag.
    """
    models.notice(answer.version)
    headers = {"ETag": f'"{answer.version}"', "Cache-Control": "private, no-cache"}
    condition = request.headers.get("if-none-match")
    if condition and _matches(condition, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    model = models.current
    if details == "true" and (
        model is None or model.version != answer.version or model.catalogue is None
    ):
        model, headers = None, {"Cache-Control": "no-store"}
    return json_response(
        _list_content(answer.items[:n], answer.source, answer.version, details, model), headers
    )


def basket_routes(top_n: int) -> APIRouter:
    """The route that takes a basket.

    top_n : the length of the longest list
    """
    routes = APIRouter()
    schema = basket_model(top_n).model_json_schema()
    routes.add_api_route(
        "/recommendations",
        fold_in,
        methods=["POST"],
        response_model=Recommendations,
        responses=TOO_LARGE,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
        },
    )
    return routes


async def fold_in(request: Request, details: Details = "false") -> Response:
    """The list that training would give to a user of these items, as `fold_in`.

    Each item counts like one `cart` event of today. The list has no item of the basket. Where the
    model knows none of the items: the `popular` ones.
    """
    lookup = _lookup(request)
    basket = await _read_basket(request, lookup.basket_model)
    popular = await lookup.read(AsyncRecommendationStore.popular)
    lookup.models.notice(popular.version)
    model = lookup.models.current
    if model is None:
        raise ServingError(f"the files of version {popular.version} are not loaded yet")
    headers = {"Cache-Control": "no-store"}
    items = await asyncio.to_thread(model.fold_in.recommend, basket.items, basket.n)
    if items:
        return json_response(
            _list_content(items, "fold_in", model.version, details, model), headers
        )
    others = [item for item in popular.items if item not in set(basket.items)][: basket.n]
    same_version = model if model.version == popular.version else None
    return json_response(
        _list_content(others, "popular", popular.version, details, same_version), headers
    )


version_routes = APIRouter()
health_routes = APIRouter()


@version_routes.get("/version", response_model=Version)
async def version(request: Request) -> Response:
    """The live version."""
    live = await _lookup(request).read(AsyncRecommendationStore.version)
    return json_response({"version": live}, {"Cache-Control": "no-store"})


@health_routes.head("/health", include_in_schema=False)
@health_routes.get("/health", response_model=Health, responses=UNAVAILABLE)
async def health(request: Request) -> Response:
    """Whether the service can answer; needs no key."""
    lookup = _lookup(request)
    live = await lookup.read(AsyncRecommendationStore.version)
    lookup.models.notice(live)
    model = lookup.models.current
    return json_response(
        {"version": live, "model": model and model.version}, {"Cache-Control": "no-store"}
    )


async def _read_basket(request: Request, model: type[Basket]) -> Basket:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise HTTPException(
                413, f"the body has more than {MAX_BODY_BYTES} bytes: send fewer items"
            )
    try:
        return model.model_validate_json(bytes(content))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _matches(condition: str, etag: str) -> bool:
    """Whether If-None-Match names the ETag. A weak tag equals a strong one (RFC 9110, 13.1.2)."""
    return condition.strip() == "*" or etag in (
        each.strip().removeprefix("W/") for each in condition.split(",")
    )


def _list_content(
    items: Sequence[str], source: str, version: str, details: str, model: LiveModel | None
) -> dict[str, Any]:
    """The list as `Recommendations` describes it.

    model : of this version; None where none is loaded, then all details are null
    """
    shown = [_item_details(item, model) for item in items] if details == "true" else items
    return {"items": shown, "source": source, "version": version}


def _item_details(item: str, model: LiveModel | None) -> dict[str, Any]:
    entry = ((model and model.catalogue) or {}).get(item, _NOT_IN_CATALOGUE)
    return {
        "id": item,
        "title": entry.title,
        "category": entry.category,
        "price": entry.price,
    }


def json_response(content: Any, headers: dict[str, str], status: int = 200) -> Response:
    """A response with compact JSON. It is not validated: tests compare it with the schema."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")
