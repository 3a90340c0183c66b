"""The names of the files of a job and of a model version, each written once."""

# a job: the worker reads the spec and the inputs that it names
SPEC = "spec.json"
TRAIN, FULL, HOLDOUT = "train.npz", "full.npz", "holdout.npz"
PINNED, BASKETS = "pinned.parquet", "baskets.npz"
# a job: the worker writes these
RESULT, LOG, NDCG = "result.json", "worker.log", "ndcg.npz"

# a job and a version
USER_TABLE, ITEM_TABLE, TRENDING_TABLE = "users.parquet", "items.parquet", "trending.parquet"

# a version: the worker writes these, the manifest last
MANIFEST, FACTORS, EVALUATION = "manifest.json", "factors.npz", "evaluation.npz"
# a version: the tasks `evaluate` and `gate` write these
METRICS, VERDICT = "metrics.json", "verdict.json"


def checkpoint(phase: str) -> str:
    """The checkpoint of a phase of the training, `fit` or `refit`."""
    return f"checkpoint-{phase}.npz"


def table(name: str) -> str:
    """The Parquet file of a version's table, such as `recommendations`."""
    return f"{name}.parquet"
