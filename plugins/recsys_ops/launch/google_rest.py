"""Google's REST services, called with the credentials of an Airflow connection."""

from typing import Any

from recsys_ops.errors import SettingsError, WorkerError

_TIMEOUT = 60


class GoogleRest:
    """One service at its endpoint, such as ``https://compute.googleapis.com``.

    An answer 429, 500, 502, 503 or 504 and a connection that broke are tried again, for about a minute.
    """

    def __init__(self, endpoint: str, conn_id: str) -> None:
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
        from google.auth.transport.requests import AuthorizedSession
        from requests.adapters import HTTPAdapter
        from urllib3 import Retry

        self.endpoint = endpoint
        self._session = AuthorizedSession(GoogleBaseHook(gcp_conn_id=conn_id).get_credentials())
        retry = Retry(
            7, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None, raise_on_status=False
        )
        self._session.mount(f"{endpoint}/", HTTPAdapter(max_retries=retry))

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The JSON answer. Raises SettingsError for a 4xx, which says what is missing, and WorkerError for what may pass."""
        from google.auth.exceptions import GoogleAuthError
        from requests import RequestException

        try:
            answer = self._session.request(method, f"{self.endpoint}/{path}", timeout=_TIMEOUT, **request)
        except GoogleAuthError as error:
            raise SettingsError(f"Google refuses the credentials of the connection: {error}") from error
        except RequestException as error:
            raise WorkerError(f"{method} {self.endpoint}/{path} was not answered: {error}") from error
        if answer.ok:
            return answer.json()
        try:
            reason = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = answer.text[:300]
        kind = WorkerError if answer.status_code == 429 or answer.status_code >= 500 else SettingsError
        raise kind(f"{method} {self.endpoint}/{path}: {answer.status_code} {reason}")
