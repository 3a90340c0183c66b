"""May the challenger go live? Every rule with its value, its threshold and a sentence; what cannot be judged is refused."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recsys_ops.settings import GateSettings


@dataclass(frozen=True)
class Rule:
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
    rules: tuple[Rule, ...]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return asdict(self) | {"rules": [asdict(rule) for rule in self.rules]}


def decide(metrics: Mapping[str, Any], settings: GateSettings) -> Verdict:
    """Judge the figures of `compare.compare`. Never raises for bad figures: a rule that cannot be judged has not passed."""
    rules = tuple(_judge(rule, metrics, settings) for rule in RULES)
    blessed = all(rule.passed for rule in rules)
    said = "; ".join(rule.sentence for rule in rules if blessed or not rule.passed)
    return Verdict(blessed, f"{'blessed' if blessed else 'not blessed'}: {said}", rules)


def champion(metrics: Mapping[str, Any], settings: GateSettings) -> Rule:
    """NDCG at the last cut-off may fall by `max_drop` of the champion's, scored again on the same users."""
    name, threshold = "champion", -settings.max_drop
    version, metric = metrics["champion_version"], _metric(metrics)
    if version is None and metrics["champion"] is None:
        allowed = settings.allow_first_deployment
        permission = "allowed" if allowed else "not allowed: set gate.allow_first_deployment for one run"
        return Rule(name, None, threshold, allowed, f"no champion to beat, first deployment {permission}")
    ours, theirs = _number(metrics, "challenger", metric), _number(metrics, "champion", metric)
    change = ours / theirs - 1 if theirs else 0.0
    return Rule(name, change, threshold, change >= threshold, f"{metric.upper()} {_percent(change)} against champion {version}")


def popularity(metrics: Mapping[str, Any], settings: GateSettings) -> Rule:
    """The lower 2.5 % bound of the NDCG gained over the popularity list must be above zero."""
    lower, mean = _number(metrics, "bootstrap", "popularity", "lower"), _number(metrics, "bootstrap", "popularity", "mean")
    said = f"{_metric(metrics).upper()} {_signed(mean)} against popularity (at least {_signed(lower)} at 97.5 % confidence)"
    return Rule("popularity", lower, 0.0, lower > 0, said)


def enough_users(metrics: Mapping[str, Any], settings: GateSettings) -> Rule:
    """Fewer users than `min_users` prove nothing."""
    users = _number(metrics, "users")
    said = f"{users:,.0f} users evaluated, at least {settings.min_users:,} needed"
    return Rule("enough_users", users, settings.min_users, users >= settings.min_users, said)


def finite(metrics: Mapping[str, Any], settings: GateSettings) -> Rule:
    """Every figure and every factor is a finite number."""
    broken = _not_finite(metrics)
    if metrics["factors_finite"] is not True:
        broken.append("factors")
    said = f"not finite: {', '.join(broken)}" if broken else "all figures and factors finite"
    return Rule("finite", len(broken), 0, not broken, said)


RULES: tuple[Callable[[Mapping[str, Any], GateSettings], Rule], ...] = (champion, popularity, enough_users, finite)


def _judge(rule: Callable[[Mapping[str, Any], GateSettings], Rule], metrics: Mapping[str, Any], settings: GateSettings) -> Rule:
    try:
        return rule(metrics, settings)
    except Exception as error:
        said = f"rule {rule.__name__} cannot be judged ({type(error).__name__}: {error}): look at metrics.json and evaluate again"
        return Rule(rule.__name__, None, None, False, said)


def _metric(metrics: Mapping[str, Any]) -> str:
    return f"ndcg@{metrics['k'][-1]}"


def _number(metrics: Mapping[str, Any], *path: str) -> float:
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
