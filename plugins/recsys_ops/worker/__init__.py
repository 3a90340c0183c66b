"""The job that runs on the training machine: a spec in, a model version out; no Airflow."""

import os

# the exit code of a worker that could not even write its result, because storage is unavailable
EXIT_NO_RESULT = os.EX_TEMPFAIL
