"""May the challenger go live? Every rule with its value, its threshold and a sentence; what cannot be judged is refused."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from recsys_ops.settings import GateSettings

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class RuleResult:
    """One rule's outcome; value and threshold are None where there was nothing to compare."""

    name: str
    value: float | None
    threshold: float | None
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """blessed : every rule passed · summary : one line for the log and the alert"""

    blessed: bool
    summary: str
    rules: tuple[RuleResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return asdict(self) | {"rules": [asdict(rule) for rule in self.rules]}


def decide(metrics: Metrics, settings: GateSettings) -> Verdict:
    """Judge the figures of `worker.model.measure`. Never raises for bad figures: a rule that cannot be judged has not passed."""
    rules = tuple(_judge(name, rule, metrics, settings) for name, rule in RULES.items())
    blessed = all(rule.passed for rule in rules)
    told = rules[:3] if blessed else [rule for rule in rules if not rule.passed]
    return Verdict(
        blessed,
        f"{'blessed' if blessed else 'not blessed'}: {'; '.join(rule.sentence for rule in told)}",
        rules,
    )


def champion(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """NDCG at the last cut-off may fall by `max_drop` of the champion's, scored again on the same users, and by more if it may
    well be chance: if the upper 97.5 % bound of the difference is not below zero.
    """
    if metrics["protocol"] != "next_day":
        return RuleResult(
            name,
            None,
            -settings.max_drop,
            True,
            f"no champion can be judged by the protocol {metrics['protocol']}",
        )
    if metrics["champion_version"] is None and metrics["champion"] is None:
        allowed = settings.allow_first_deployment
        permission = (
            "allowed" if allowed else "not allowed: set gate.allow_first_deployment for one run"
        )
        return RuleResult(
            name,
            None,
            -settings.max_drop,
            allowed,
            f"no champion to beat, first deployment {permission}",
        )
    return _no_worse(name, metrics, settings.max_drop)


def reference(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The same against what was live 30 days ago, by `max_drop_reference`: no slow way down in small steps."""
    if metrics["reference_version"] is None and metrics["reference"] is None:
        return RuleResult(
            name,
            None,
            -settings.max_drop_reference,
            True,
            "no deployment is old enough to be the reference",
        )
    return _no_worse(name, metrics, settings.max_drop_reference)


def popularity(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The lower 97.5 % bound of the NDCG gained over the popularity list must be above zero."""
    lower, mean = (
        _number(metrics, "bootstrap", "popularity", "lower"),
        _number(metrics, "bootstrap", "popularity", "mean"),
    )
    said = f"{_metric(metrics).upper()} {_signed(mean)} against popularity (at least {_signed(lower)} at 97.5 % confidence)"
    return RuleResult(name, lower, 0.0, lower > 0, said)


def enough_users(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """Fewer users than `min_users` prove nothing."""
    users = _number(metrics, "users")
    said = f"{users:,.0f} users evaluated, at least {settings.min_users:,} needed"
    return RuleResult(name, users, settings.min_users, users >= settings.min_users, said)


def finite(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """Every figure and every factor is a finite number."""
    broken = _not_finite(metrics)
    if metrics["factors_finite"] is not True:
        broken.append("factors")
    said = f"not finite: {', '.join(broken)}" if broken else "all figures and factors finite"
    return RuleResult(name, len(broken), 0, not broken, said)


def ids(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The ids beside the factors are those that the matrix was built with, in its order."""
    same = metrics["ids_match"] is True
    return RuleResult(
        name,
        None,
        None,
        same,
        "ids as in the matrix" if same else "the ids beside the factors are not the matrix'",
    )


def overlap(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The refitted model, which is served, lists at least `min_refit_overlap` of what the evaluated one lists."""
    found = _number(metrics, "parity", "overlap")
    said = f"the refit keeps {found:.0%} of the evaluated model's lists, at least {settings.min_refit_overlap:.0%} needed"
    return RuleResult(name, found, settings.min_refit_overlap, found >= settings.min_refit_overlap, said)


def parity(
    measure: str, what: str, name: str, metrics: Metrics, settings: GateSettings
) -> RuleResult:
    """The refit changes coverage and the factors' lengths by no more than the factor `max_refit_change`."""
    found, most = _number(metrics, "parity", measure), settings.max_refit_change
    return RuleResult(
        name,
        found,
        most,
        1 / most <= found <= most,
        f"the refit changes {what} {found:.2f}-fold, at most {most:g}-fold",
    )


def usual(
    measure: str, what: str, limit: str, name: str, metrics: Metrics, settings: GateSettings
) -> RuleResult:
    """A figure of the day may be so many times its median over the 28 days before, or that part of it; of the ratios half as much
    again (of the logarithm) as on the most unusual of those days, where that is more.
    """
    most = max(
        float(getattr(settings, limit)), float(metrics["data"].get(f"spread_{measure}") or 1) ** 1.5
    )
    if metrics["data"][f"usual_{measure}"] is None:
        return RuleResult(
            name, None, most, True, f"too few days before to say how many {what} are usual"
        )
    found, before = _number(metrics, "data", measure), _number(metrics, "data", f"usual_{measure}")
    times = found / before
    said = f"{found:,.4g} {what} on the day, usual are {before:,.4g}: at most {most:.3g} times as many or as few"
    return RuleResult(name, times, most, 1 / most <= times <= most, said)


def share(
    measure: str, what: str, name: str, metrics: Metrics, settings: GateSettings
) -> RuleResult:
    """The share of rejected rows may differ by `max_share_change` from its median over the runs of the 28 days before."""
    found, before, most = (
        metrics["data"][measure],
        metrics["data"][f"usual_{measure}"],
        settings.max_share_change,
    )
    if found is None or before is None:
        return RuleResult(
            name, None, most, True, f"too few runs before to say how many {what} are usual"
        )
    change = _number(metrics, "data", measure) - _number(metrics, "data", f"usual_{measure}")
    said = f"{found:.1%} of the rows were {what}, usual are {before:.1%}: at most {most:.0%} more or less"
    return RuleResult(name, change, most, abs(change) <= most, said)


def gap(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The days just before the held-out one are in the history: no longer a gap than any in the four weeks before."""
    if metrics["data"]["usual_gap"] is None:
        return RuleResult(
            name, None, None, True, "too few days before to say how long a gap is usual"
        )
    days, longest = _number(metrics, "data", "gap"), _number(metrics, "data", "usual_gap")
    todo = "" if days <= longest else ": run recsys_ingest for the missing days"
    said = f"days from the last one with events to this one: {days:.0f}, at most {longest:.0f} is usual{todo}"
    return RuleResult(name, days, longest, days <= longest, said)


def window(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The window has at least `min_window_share` of the rows that the champion's had, day for day."""
    if metrics["champion_data"] is None:
        return RuleResult(
            name, None, settings.min_window_share, True, "no champion whose window could be larger"
        )
    ours, theirs = (_number(metrics, data, "window_rows") for data in ("data", "champion_data"))
    if metrics["data"]["window_days"] != metrics["champion_data"]["window_days"]:
        return RuleResult(
            name,
            None,
            settings.min_window_share,
            True,
            "the champion has learnt from a window of another length",
        )
    of = ours / theirs
    said = f"the window has {ours:,.0f} rows, the champion's had {theirs:,.0f}: at least {settings.min_window_share:.0%} needed"
    return RuleResult(name, of, settings.min_window_share, of >= settings.min_window_share, said)


RULES: Mapping[str, Callable[[str, Metrics, GateSettings], RuleResult]] = {
    # the first three are told of a blessed model
    "champion": champion,
    "popularity": popularity,
    "enough_users": enough_users,
    "reference": reference,
    "finite": finite,
    "ids": ids,
    "overlap": overlap,
    "coverage": partial(parity, "coverage", "the items that are listed"),
    "user_norm": partial(parity, "user_norm", "the length of the users' factors"),
    "item_norm": partial(parity, "item_norm", "the length of the items' factors"),
    "rows": partial(usual, "rows", "rows", "max_day_change"),
    "users": partial(usual, "users", "users", "max_day_change"),
    "items": partial(usual, "items", "items", "max_day_change"),
    "rows_per_user": partial(usual, "rows_per_user", "rows a user", "max_ratio_change"),
    "repeats": partial(usual, "repeats", "rows a pair of user and item", "max_ratio_change"),
    "quarantine_share": partial(share, "quarantine_share", "rejected for their values"),
    "bot_share": partial(share, "bot_share", "rejected as robots'"),
    "gap": gap,
    "window": window,
}


def _judge(
    name: str,
    rule: Callable[[str, Metrics, GateSettings], RuleResult],
    metrics: Metrics,
    settings: GateSettings,
) -> RuleResult:
    try:
        return rule(name, metrics, settings)
    except Exception as error:
        said = f"rule {name} cannot be judged ({type(error).__name__}: {error}): look at metrics.json and evaluate again"
        return RuleResult(name, None, None, False, said)


def _no_worse(name: str, metrics: Metrics, most: float) -> RuleResult:
    """Raises ValueError where a figure is missing."""
    metric = _metric(metrics)
    ours, theirs = _number(metrics, "challenger", metric), _number(metrics, name, metric)
    upper = _number(metrics, "bootstrap", name, "upper")
    change = ours / theirs - 1 if theirs else 0.0
    if ours < 0 or theirs < 0:
        raise ValueError(f"{metric} of {min(ours, theirs)} is none")
    said = f"{metric.upper()} {_percent(change)} against {name} {metrics[f'{name}_version']}"
    by_chance = change < -most and upper >= 0
    return RuleResult(
        name,
        change,
        -most,
        change >= -most or by_chance,
        f"{said}, which may be chance" if by_chance else said,
    )


def _metric(metrics: Metrics) -> str:
    return f"ndcg@{metrics['cutoffs'][-1]}"


def _number(metrics: Metrics, *path: str) -> float:
    value: Any = metrics
    for key in path:
        value = value[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{'.'.join(path)} is {value!r}, not a finite number")
    return float(value)


def _not_finite(value: Any, name: str = "metrics") -> list[str]:
    """The names of the numbers in nested figures that are NaN or infinite."""
    if isinstance(value, Mapping):
        return [found for key, inner in value.items() for found in _not_finite(inner, str(key))]
    return [name] if isinstance(value, float) and not math.isfinite(value) else []


def _percent(share: float) -> str:
    return f"{share * 100:+.1f} %".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
