"""The worker: it trains one job, from a spec to a model version. It needs no Airflow."""

import os

# the exit code of a worker that could not write its result, because storage did not answer
EXIT_NO_RESULT = os.EX_TEMPFAIL
