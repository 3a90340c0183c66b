"""The lookup service: ``python -m recsys_ops.serving.api``. It needs no Airflow.

The Redis connection comes from the environment variable that Airflow would read
(``AIRFLOW_CONN_RECSYS_REDIS``, as JSON), the access to storage from the same variables as the
worker's. For several processes run ``uvicorn --factory recsys_ops.serving.api:application
--workers 4 --no-access-log``: each of them loads the live version and counts requests on its own.
"""

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect

from recsys_ops.errors import ServingError, SettingsError
from recsys_ops.serving.api_auth import API_KEY_VARIABLE, access_checks
from recsys_ops.serving.api_routes import (
    Lookup,
    basket_routes,
    health_routes,
    json_response,
    list_routes,
    version_routes,
)
from recsys_ops.serving.api_schema import error_responses
from recsys_ops.serving.client import address_from_environment, connect_redis_async
from recsys_ops.serving.live_model import LiveModels
from recsys_ops.serving.store import AsyncRecommendationStore
from recsys_ops.settings import Settings, load_settings
from recsys_ops.storage.objects import Storage

log = logging.getLogger(__name__)

_REDIS_TIMEOUT_S = 0.5
_RETRY_AFTER_S = 2


def application() -> FastAPI:
    """The app as the settings and the environment describe it. Raises SettingsError."""
    settings = load_settings()
    address = address_from_environment(settings.serving.conn_id)
    client = connect_redis_async(address, timeout_s=_REDIS_TIMEOUT_S, retries=1)
    store = AsyncRecommendationStore(client, settings.serving)
    models = LiveModels(Storage(settings.storage.root))
    return create_app(settings, store, models, os.environ.get(API_KEY_VARIABLE))


def create_app(
    settings: Settings, store: AsyncRecommendationStore, models: LiveModels, key: str | None = None
) -> FastAPI:
    """The app over a store and the files of the live version.

    key : what clients must send where `serving.api.require_key` is set

    Raises SettingsError when a key is required and there is no usable one.
    """
    api, top_n = settings.serving.api, settings.lists.top_n
    app = FastAPI(
        title="recsys-ops",
        summary="Recommendation lists of the live model version.",
        version="1",
        lifespan=_lifespan,
        redirect_slashes=False,
        exception_handlers={
            ServingError: _unavailable,
            RequestValidationError: _invalid_request,
            ClientDisconnect: _client_left,
            Exception: _service_failed,
        },
    )
    app.state.lookup = Lookup(store, models, top_n)
    access = access_checks(api, key)
    for routes in (list_routes(top_n), basket_routes(top_n), version_routes):
        app.include_router(routes, dependencies=access, responses=error_responses(api))
    app.include_router(health_routes)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    lookup: Lookup = app.state.lookup
    with suppress(ServingError):
        lookup.models.notice(await lookup.read(AsyncRecommendationStore.version))
    yield


async def _unavailable(_: Request, error: Exception) -> Response:
    log.warning("%s", error)
    headers = {"Retry-After": str(_RETRY_AFTER_S), "Cache-Control": "no-store"}
    return json_response(
        {"detail": "the lists cannot be read at the moment: try again"}, headers, status=503
    )


async def _invalid_request(_: Request, error: Exception) -> Response:
    problems = error.errors()[:5] if isinstance(error, RequestValidationError) else []
    detail = "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"[:200] for problem in problems
    )
    return json_response({"detail": detail}, {}, status=422)


async def _client_left(_: Request, __: Exception) -> Response:
    # nobody reads this response; without it the log would have a traceback
    return Response(status_code=400)


async def _service_failed(_: Request, __: Exception) -> Response:
    return json_response({"detail": "the service failed: see its log"}, {}, status=500)


def main() -> int:
    """Serve until stopped; 1 when the settings are wrong."""
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
