"""What Airflow loads of this package: the window functions as template macros, ``{{ macros.recsys_ops.run_day(…) }}``."""

from airflow.plugins_manager import AirflowPlugin

from recsys_ops import windows


class RecsysOpsPlugin(AirflowPlugin):
    name = "recsys_ops"
    macros = [windows.run_day, windows.first_day]
