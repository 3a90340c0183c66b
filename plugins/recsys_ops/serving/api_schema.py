"""The JSON of the lookup service, as its OpenAPI schema describes it."""

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from recsys_ops.settings import ApiSettings

MAX_BODY_BYTES = 1 << 20
_MAX_BASKET_ITEMS = 1000

Responses = dict[int | str, dict[str, Any]]
Details = Annotated[
    Literal["true", "false"], Query(description="Items as objects with title, category and price.")
]


class Item(BaseModel):
    """An item of the catalogue of the version's day; null where the catalogue has no value."""

    id: str
    title: str | None
    category: str | None
    price: float | None


class Recommendations(BaseModel):
    """A list of one version, best first; its source is `popular` where there is no other list."""

    items: list[str] | list[Item]
    source: Literal[
        "personal", "similar", "bought_together", "category", "trending", "popular", "fold_in"
    ]
    version: str


class Version(BaseModel):
    """The live version."""

    version: str


class Health(BaseModel):
    """The live version, and the version of the loaded model: null until one is loaded."""

    version: str
    model: str | None


class Problem(BaseModel):
    """What was wrong."""

    detail: str


def _float_to_int(number: Any) -> Any:
    """An integer for JSON's 3.0; other values unchanged."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


WholeNumber = Annotated[int, BeforeValidator(_float_to_int)]


class Basket(BaseModel):
    """Items that a visitor looks at or has in the cart; unknown ones are skipped."""

    model_config = ConfigDict(strict=True, extra="forbid")

    items: list[str] = Field(max_length=_MAX_BASKET_ITEMS)
    n: WholeNumber


def basket_model(top_n: int) -> type[Basket]:
    """`Basket` whose `n` is at most `top_n`, which is also its default."""
    return create_model(
        "Basket",
        __base__=Basket,
        __doc__=Basket.__doc__,
        n=(WholeNumber, Field(default=top_n, ge=1, le=top_n)),
    )


_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
NOT_MODIFIED: Responses = {304: {"description": "If-None-Match names the live version."}}
TOO_LARGE: Responses = {
    413: {"model": Problem, "description": f"The body has more than {MAX_BODY_BYTES} bytes."}
}
UNAVAILABLE: Responses = {
    503: {
        "model": Problem,
        "description": "Redis cannot be reached or is empty, or no model is loaded.",
        "headers": _RETRY_AFTER,
    }
}


def error_responses(api: ApiSettings) -> Responses:
    """The errors that every route but the health check can answer with."""
    responses: Responses = {422: {"model": Problem}, **UNAVAILABLE}
    if api.require_key:
        responses[401] = {"model": Problem, "description": "The key is missing or wrong."}
    if api.requests_per_minute:
        responses[429] = {
            "model": Problem,
            "description": "Too many requests.",
            "headers": _RETRY_AFTER,
        }
    return responses
