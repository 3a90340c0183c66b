"""The cleaning steps: pure functions from a frame and its rules to kept and rejected rows."""

from recsys_ops.cleaning.align import align_schema
from recsys_ops.cleaning.bots import filter_bots
from recsys_ops.cleaning.contract import Contract, load_contract
from recsys_ops.cleaning.crawlers import filter_crawlers
from recsys_ops.cleaning.deduplicate import deduplicate
from recsys_ops.cleaning.drift import absent_filter_inputs, drift
from recsys_ops.cleaning.fix_types import fix_types
from recsys_ops.cleaning.result import Cleaned
from recsys_ops.cleaning.staff import filter_staff

__all__ = [
    "Cleaned",
    "Contract",
    "absent_filter_inputs",
    "align_schema",
    "deduplicate",
    "drift",
    "filter_bots",
    "filter_crawlers",
    "filter_staff",
    "fix_types",
    "load_contract",
]
