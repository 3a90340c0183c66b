"""Google's REST services, called with the credentials of an Airflow connection."""

from typing import Any

from recsys_ops.errors import SettingsError, WorkerError

_TIMEOUT = 60
# a server that says Retry-After is believed up to this: the task's own retries are for longer outages
_LONGEST_PAUSE = 30


class NotFoundError(SettingsError):
    """What is asked for is not there, or not for this account."""


class GoogleRest:
    """One service at its endpoint, such as ``https://compute.googleapis.com``.

    needs : which roles the connection's account must have, said where Google refuses it

    Raises SettingsError when the connection has no usable credentials.
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
        self._session, self._once = session(credentials), session(credentials)
        retry = Retry(
            7,
            backoff_factor=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
            retry_after_max=_LONGEST_PAUSE,
        )
        self._session.mount(f"{endpoint}/", HTTPAdapter(max_retries=retry))

    def call(self, method: str, path: str, *, repeat: bool = True, **request: Any) -> Any:
        """The JSON answer.

        An answer 429, 500, 502, 503 or 504 and a connection that broke are tried again for about a minute, unless `repeat` is
        false, as it must be for what may not be done twice. Raises NotFoundError for a 404, SettingsError for any other 4xx,
        which says what is missing, and WorkerError for what may pass.
        """
        from google.auth.exceptions import GoogleAuthError, TransportError
        from requests import RequestException

        what = f"{method} {self.endpoint}/{path}"
        session = self._session if repeat else self._once
        try:
            answer = session.request(method, f"{self.endpoint}/{path}", timeout=_TIMEOUT, **request)
        except GoogleAuthError as error:
            if isinstance(error, TransportError) or error.retryable:
                raise WorkerError(
                    f"Google gives connection {self._conn_id} no token at the moment: {error}"
                ) from error
            raise SettingsError(
                f"Google refuses the credentials of connection {self._conn_id}: {error}"
            ) from error
        except RequestException as error:
            raise WorkerError(f"{what} was not answered: {error}") from error
        if answer.ok:
            return answer.json()
        try:
            reason = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            reason = answer.text[:300]
        message = f"{what}: {answer.status_code} {reason}"
        if answer.status_code == 429 or answer.status_code >= 500:
            raise WorkerError(message)
        if answer.status_code in (401, 403) and self._needs:
            message = f"{message} (the account of connection {self._conn_id} needs {self._needs})"
        raise (NotFoundError if answer.status_code == 404 else SettingsError)(message)
