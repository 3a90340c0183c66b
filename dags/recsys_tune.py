"""### Look for better settings, once a week

A run starts every Sunday after the nightly retraining, or by hand. It tries settings in batches:
`ask` chooses them from the results of earlier trials, each `trial` trains with them on the history
before a held-out day and evaluates the result on that day, for several days, on the same worker as
the nightly training, and `tell` records the results. The first trial uses the settings as they are.
`propose` writes how much the best trial gains over the first, with a 95 % interval, to
`tuning/day=…/proposal.json`, and the lines for `recsys.yaml` to its log.

Nothing goes live here. If `tuning.adopt` is true, `recsys_retrain` trains with the proposal, and
the gate decides.

A trial that falls behind the others ends early; a trial that fails is left out. Cleared tasks keep
what exists: a day that a trial was already evaluated on is not trained again.

**Trigger form**

- `day`: the last held-out day, if not yesterday.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup, TriggerRule, chain

from recsys_ops.operators.alerts import alert
from recsys_ops.operators.ask import AskOperator
from recsys_ops.operators.propose import ProposeOperator
from recsys_ops.operators.start_machine import StartMachineOperator
from recsys_ops.operators.stop_machine import StopMachineOperator, stop_left_on
from recsys_ops.operators.tell import TellOperator
from recsys_ops.operators.trial import TrialOperator
from recsys_ops.settings import load_settings

with DAG(
    "recsys_tune",
    schedule=CronTriggerTimetable("0 5 * * 0", timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=18),
    on_success_callback=stop_left_on,
    on_failure_callback=stop_left_on,
    default_args={
        "owner": "recsys",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(hours=1),
        "on_failure_callback": alert,
    },
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            description="The last held-out day, YYYY-MM-DD; empty: yesterday",
        ),
    },
    tags=["recsys", "tune"],
    doc_md=__doc__,
):
    tuning = load_settings().tuning
    batches = []
    for batch in range(1, tuning.batches + 1):
        with TaskGroup(f"batch_{batch}") as group:
            ask = AskOperator(task_id="ask", batch=batch)
            trial = TrialOperator.partial(
                task_id="trial",
                max_active_tis_per_dag=tuning.parallel_trials,
                map_index_template="{{ task.title }}",
                execution_timeout=timedelta(hours=5),
            ).expand_kwargs(ask.output)
            tell = TellOperator(task_id="tell", batch=batch, trigger_rule=TriggerRule.ALL_DONE)
            trial >> tell
        batches.append(group)
    propose = ProposeOperator(task_id="propose")
    chain(*batches, propose)

    if load_settings().worker.gce:
        start_machine = StartMachineOperator(task_id="start_machine")
        stop_machine = StopMachineOperator(task_id="stop_machine")
        stop_machine.as_teardown(setups=start_machine, on_failure_fail_dagrun=True)
        start_machine >> batches[0]
        batches[-1] >> stop_machine
