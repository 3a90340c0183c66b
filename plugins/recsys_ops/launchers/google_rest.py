"""Google's REST services, called with the credentials of an Airflow connection."""

from typing import Any

from recsys_ops.errors import SettingsError, WorkerError

_TIMEOUT_S = 60
# a server's Retry-After is obeyed up to this many seconds; for longer outages the task is retried
_LONGEST_PAUSE_S = 30


class NotFoundError(SettingsError):
    """The thing does not exist, or the account may not see it."""


class GoogleRest:
    """A service at its endpoint, such as ``https://compute.googleapis.com``.

    needs : the roles that the connection's account needs, for the message when Google refuses it

    Raises SettingsError if the connection has no usable credentials.
    """

    def __init__(self, endpoint: str, conn_id: str, needs: str = "") -> None:
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
        from airflow.sdk.exceptions import AirflowException
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import AuthorizedSession
        from requests.adapters import HTTPAdapter
        from urllib3 import Retry

        self.endpoint, self._conn_id, self._needs = endpoint, conn_id, needs
        try:
            credentials = GoogleBaseHook(gcp_conn_id=conn_id).get_credentials()
        except (AirflowException, GoogleAuthError, ValueError) as error:
            raise SettingsError(
                f"connection {conn_id}, type google_cloud_platform, gives no credentials: {error}"
            ) from error
        session: Any = AuthorizedSession
        self._retrying, self._once = session(credentials), session(credentials)
        retry = Retry(
            7,
            backoff_factor=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
            retry_after_max=_LONGEST_PAUSE_S,
        )
        self._retrying.mount(f"{endpoint}/", HTTPAdapter(max_retries=retry))

    def call(self, method: str, path: str, *, repeat: bool = True, **request: Any) -> Any:
        """Send a request and return the JSON answer.

        repeat : whether to repeat the request for about a minute after a status 429, 500, 502, 503
            or 504 or a broken connection; false for a request that must not be done twice

        Raises NotFoundError for a 404, SettingsError for any other 4xx, WorkerError for what may
        pass.
        """
        from google.auth.exceptions import GoogleAuthError, TransportError
        from requests import RequestException

        url = f"{self.endpoint}/{path}"
        session = self._retrying if repeat else self._once
        try:
            answer = session.request(method, url, timeout=_TIMEOUT_S, **request)
        except GoogleAuthError as error:
            if isinstance(error, TransportError) or error.retryable:
                raise WorkerError(
                    f"Google gives connection {self._conn_id} no token at the moment: {error}"
                ) from error
            raise SettingsError(
                f"Google refuses the credentials of connection {self._conn_id}: {error}"
            ) from error
        except RequestException as error:
            raise WorkerError(f"{method} {url} was not answered: {error}") from error
        if answer.ok:
            return answer.json()
        try:
            reason = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = answer.text[:300]
        message = f"{method} {url}: {answer.status_code} {reason}"
        if answer.status_code == 429 or answer.status_code >= 500:
            raise WorkerError(message)
        if answer.status_code in (401, 403) and self._needs:
            message = f"{message} (the account of connection {self._conn_id} needs {self._needs})"
        raise (NotFoundError if answer.status_code == 404 else SettingsError)(message)
