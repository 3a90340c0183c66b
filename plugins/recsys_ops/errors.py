"""The errors that users see. Each message says what is wrong, where, and what to do."""


class RecsysError(Exception):
    """Base of all errors that this package raises on purpose."""


class SettingsError(RecsysError):
    """A setting is missing, unknown or out of bounds."""


class ContractError(RecsysError):
    """The data contract is wrong, or a delivery does not fit it."""


class SourceError(RecsysError):
    """The production database cannot be read."""


class StorageError(RecsysError):
    """An object in blob storage is missing or unreadable, or storage does not answer."""


class DamagedError(StorageError):
    """An object in blob storage is there, but is not what it should be."""


class DataError(RecsysError):
    """The data exist but must not be used: too many rejections, or nothing to train on."""


class ModelError(RecsysError):
    """A job spec or a model version is missing, damaged or unusable."""


class WorkerError(RecsysError):
    """The training machine is not available, or the job was lost; a retry may resume it."""


class NotBlessedError(RecsysError):
    """The gate did not bless the challenger; the champion stays live."""


class TrackingError(RecsysError):
    """MLflow does not answer, or refuses a request; no model waits for it."""


class ServingError(RecsysError):
    """A version could not be staged, verified or swapped; readers get the previous version."""
