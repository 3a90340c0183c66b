"""The errors a user meets. Each message says what is wrong, where, and what to do next."""


class RecsysError(Exception):
    """Base of every error this package raises on purpose."""


class SettingsError(RecsysError):
    """A setting is missing, unknown or out of bounds."""


class ContractError(RecsysError):
    """The data contract is wrong, or a delivery cannot satisfy it."""


class SourceError(RecsysError):
    """The production database cannot be read."""


class StorageError(RecsysError):
    """An object in blob storage is missing or unreadable, or storage is away."""


class DataError(RecsysError):
    """The data are there but must not be used (too many rejects, nothing to train on)."""


class ModelError(RecsysError):
    """A job spec or a model version is missing, damaged or unfit for use."""


class WorkerError(RecsysError):
    """The training machine cannot be had or reached, or the job was lost with it; another try may go on where it was."""


class NotBlessedError(RecsysError):
    """The gate refused the challenger; what is live stays live."""


class TrackingError(RecsysError):
    """MLflow cannot be reached, or refuses what it is sent; no model waits for it."""


class ServingError(RecsysError):
    """Redis could not be filled, verified or swapped; readers still get the previous version."""
