"""The gate: may the challenger be served? A rule that cannot be checked counts as failed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from recsys_ops.evaluation.rule_result import Metrics, RuleResult, number
from recsys_ops.evaluation.served_rules import SERVED_RULES
from recsys_ops.settings import GateSettings


@dataclass(frozen=True)
class Verdict:
    """The decision about a version.

    blessed : every rule passed
    summary : one line for the log and the alert
    data : one line about the day's data: rows, missing days, rejected rows, eligible items
    rules : in the order of `RULES`
    """

    blessed: bool
    summary: str
    data: str
    rules: tuple[RuleResult, ...]

    @property
    def never_forced(self) -> list[str]:
        """The sentences of the failed rules that `force_deploy` cannot override."""
        failed = (rule for rule in self.rules if not rule.passed)
        return [rule.sentence for rule in failed if rule.name in NEVER_FORCED]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return asdict(self) | {"rules": [asdict(rule) for rule in self.rules]}


def decide(metrics: Metrics, settings: GateSettings) -> Verdict:
    """Check a version's metrics by every rule.

    Never raises for bad metrics: a rule that raises has not passed.

    metrics : the content of ``metrics.json``
    """
    results = tuple(_check(name, rule, metrics, settings) for name, rule in RULES.items())
    blessed = all(result.passed for result in results)
    summarised = results[:3] if blessed else [result for result in results if not result.passed]
    sentences = "; ".join(result.sentence for result in summarised)
    summary = f"{'blessed' if blessed else 'not blessed'}: {sentences}"
    return Verdict(blessed, summary, _describe_data(metrics), results)


def champion(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """NDCG at the last cut-off is at most `max_drop` below the champion's on the same users.

    A larger drop passes as well if it may be chance: if the upper end of the difference's 95 %
    interval is not below zero.
    """
    threshold = -settings.max_drop
    if metrics["protocol"] != "next_day":
        sentence = f"the protocol {metrics['protocol']} has no champion to compare with"
        return RuleResult(name, None, threshold, True, sentence)
    if metrics["champion_version"] is None and metrics["champion"] is None:
        allowed = settings.allow_first_deployment
        permission = (
            "allowed" if allowed else "not allowed: set gate.allow_first_deployment for one run"
        )
        sentence = f"no champion to beat, first deployment {permission}"
        return RuleResult(name, None, threshold, allowed, sentence)
    return _no_worse(name, metrics, settings.max_drop)


def reference(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The same against what was live 30 days ago, by `max_drop_reference`.

    It keeps many small drops from adding up.
    """
    if metrics["reference_version"] is None and metrics["reference"] is None:
        sentence = "no deployment is old enough to be the reference"
        return RuleResult(name, None, -settings.max_drop_reference, True, sentence)
    return _no_worse(name, metrics, settings.max_drop_reference)


def popularity(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The lower bound of the NDCG gained over the popularity list is above zero."""
    lower = number(metrics, "bootstrap", "popularity", "lower")
    mean = number(metrics, "bootstrap", "popularity", "mean")
    sentence = (
        f"{_metric(metrics).upper()} {_signed(mean)} against popularity "
        f"(at least {_signed(lower)} at 97.5 % confidence)"
    )
    return RuleResult(name, lower, 0.0, lower > 0, sentence)


def enough_users(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """At least `min_users` users were evaluated."""
    users = number(metrics, "users")
    sentence = f"{users:,.0f} users evaluated, at least {settings.min_users:,} needed"
    return RuleResult(name, users, settings.min_users, users >= settings.min_users, sentence)


def finite(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """Every figure and every factor is a finite number."""
    not_finite = _not_finite(metrics)
    if metrics["factors_finite"] is not True:
        not_finite.append("factors")
    sentence = "all figures and factors are finite"
    if not_finite:
        sentence = f"not finite: {', '.join(not_finite)}"
    return RuleResult(name, len(not_finite), 0, not not_finite, sentence)


def ids(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The ids beside the factors are those of the matrix, in its order."""
    match = metrics["ids_match"] is True
    sentence = (
        "the ids are those of the matrix"
        if match
        else "the ids beside the factors are not those of the matrix"
    )
    return RuleResult(name, None, None, match, sentence)


def overlap(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The refitted model lists at least `min_refit_overlap` of what the evaluated model lists."""
    share_kept, least = number(metrics, "parity", "overlap"), settings.min_refit_overlap
    sentence = (
        f"the refit keeps {share_kept:.0%} of the evaluated model's lists, "
        f"at least {least:.0%} needed"
    )
    return RuleResult(name, share_kept, least, share_kept >= least, sentence)


def parity(
    figure: str, words: str, name: str, metrics: Metrics, settings: GateSettings
) -> RuleResult:
    """The refit changes a figure by at most the factor `max_refit_change`.

    figure : its key in ``metrics["parity"]`` · words : what it is, for the sentence
    """
    change, most = number(metrics, "parity", figure), settings.max_refit_change
    sentence = f"the refit changes {words} {change:.2f}-fold, at most {most:g}-fold"
    return RuleResult(name, change, most, 1 / most <= change <= most, sentence)


def usual(
    limit: str, words: str, name: str, metrics: Metrics, settings: GateSettings
) -> RuleResult:
    """A figure of the day lies between 1/x and x times its median over the 28 days before.

    x is the setting `limit`. Where one of those days deviated from the median by a factor s, x is
    at least s^1.5.

    name : the key in ``metrics["data"]`` · words : what is counted, for the sentence
    """
    figure = metrics["data"][name]
    most = max(float(getattr(settings, limit)), float(figure.get("spread") or 1) ** 1.5)
    if figure["usual"] is None:
        sentence = f"too few days before to say how many {words} are usual"
        return RuleResult(name, None, most, True, sentence)
    value, median = number(metrics, "data", name, "value"), number(metrics, "data", name, "usual")
    times = value / median
    sentence = (
        f"{value:,.4g} {words} on the day, usual are {median:,.4g}: "
        f"at most {most:.3g} times as many or as few"
    )
    return RuleResult(name, times, most, 1 / most <= times <= most, sentence)


def share(words: str, name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """A share of rejected or ignored rows differs by at most `max_share_change` from its usual one.

    Where the shares of the days before differ more than that, the limit is higher, see `_most`.

    name : the key in ``metrics["data"]`` · words : which rows, for the sentence
    """
    figure = metrics["data"][name]
    most = _most(figure, settings)
    if figure["value"] is None or figure["usual"] is None:
        sentence = f"too few runs before to say how many {words} are usual"
        return RuleResult(name, None, most, True, sentence)
    value, median = number(metrics, "data", name, "value"), number(metrics, "data", name, "usual")
    change = value - median
    sentence = (
        f"{value:.1%} of the rows were {words}, usual are {median:.1%}: "
        f"at most {most:.0%} more or less"
    )
    return RuleResult(name, change, most, abs(change) <= most, sentence)


def _most(figure: Mapping[str, Any], settings: GateSettings) -> float:
    """How far a share may be from its usual one: half as far again as on an odd day before."""
    return max(settings.max_share_change, 1.5 * float(figure.get("spread") or 0))


def conversions_rejected(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The filters rejected at most `max_conversions_rejected` of the carts and purchases.

    Where the usual share is known, also at most `max_share_change` more than usual.
    """
    figure, most = metrics["data"][name], settings.max_conversions_rejected
    if figure["value"] is None:
        return RuleResult(name, None, most, True, "no carts or purchases were cleaned on the day")
    value = number(metrics, "data", name, "value")
    if figure["usual"] is not None:
        most = min(most, number(metrics, "data", name, "usual") + settings.max_share_change)
    sentence = (
        f"{value:.1%} of the carts, checkouts and purchases were rejected as robots' or staff's: "
        f"at most {most:.1%}"
    )
    return RuleResult(name, value, most, value <= most, sentence)


def nulls(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """In each column the share of rows without a value is at most `max_share_change` off.

    Where the shares of the days before differ more than that, the limit is higher, see `_most`.
    """
    changes = {
        column: number(metrics, "data", name, column, "value")
        - number(metrics, "data", name, column, "usual")
        for column, figure in metrics["data"][name].items()
        if figure["usual"] is not None
    }
    if not changes:
        sentence = "too few days before to say how many rows without a value are usual"
        return RuleResult(name, None, settings.max_share_change, True, sentence)
    limits = {column: _most(metrics["data"][name][column], settings) for column in changes}
    column = max(changes, key=lambda column: abs(changes[column]) - limits[column])
    figure, change, most = metrics["data"][name][column], changes[column], limits[column]
    sentence = (
        f"{figure['value']:.1%} of the rows have no {column}, usual are {figure['usual']:.1%}: "
        f"at most {most:.0%} more or less"
    )
    return RuleResult(name, change, most, abs(change) <= most, sentence)


def gap(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The days before the held-out one are in the history.

    No day of the four weeks before is missing because no run has read it, and the gap just before
    the held-out day is no longer than the longest that occurred twice in these weeks.
    """
    data = metrics["data"]
    if unread := data["unread_days"]:
        sentence = (
            f"days of the 28 before that no run has read: {len(unread)} "
            f"({unread[0]} … {unread[-1]}): run recsys_ingest for them"
        )
        return RuleResult(name, len(unread), 0, False, sentence)
    if data["gap"]["usual"] is None:
        sentence = "too few days before to say how long a gap is usual"
        return RuleResult(name, None, None, True, sentence)
    days, longest = (number(metrics, "data", "gap", key) for key in ("value", "usual"))
    next_step = "" if days <= longest else ": run recsys_ingest for the missing days"
    sentence = (
        f"days since the last one with events: {days:.0f}, usual are at most {longest:.0f}"
        f"{next_step}"
    )
    return RuleResult(name, days, longest, days <= longest, sentence)


def window(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The window has at least `min_window_share` of the rows of the champion's window.

    Only windows of the same number of days are compared.
    """
    least = settings.min_window_share
    if metrics["champion_data"] is None:
        return RuleResult(name, None, least, True, "no champion whose window could be larger")
    rows = number(metrics, "data", "window_rows")
    champion_rows = number(metrics, "champion_data", "window_rows")
    if metrics["data"]["window_days"] != metrics["champion_data"]["window_days"]:
        sentence = "the champion was trained on a window of another length"
        return RuleResult(name, None, least, True, sentence)
    ratio = rows / champion_rows
    sentence = (
        f"the window has {rows:,.0f} rows, the champion's had {champion_rows:,.0f}: "
        f"at least {least:.0%} needed"
    )
    return RuleResult(name, ratio, least, ratio >= least, sentence)


RULES: Mapping[str, Callable[[str, Metrics, GateSettings], RuleResult]] = {
    # the summary of a blessed model has the sentences of the first three
    "champion": champion,
    "popularity": popularity,
    "enough_users": enough_users,
    "reference": reference,
    "finite": finite,
    "ids": ids,
    "overlap": overlap,
    "coverage": partial(parity, "coverage", "the number of listed items"),
    "user_norm": partial(parity, "user_norm", "the length of the users' factors"),
    "item_norm": partial(parity, "item_norm", "the length of the items' factors"),
    "rows": partial(usual, "max_day_change", "rows"),
    "users": partial(usual, "max_day_change", "users"),
    "items": partial(usual, "max_day_change", "items"),
    "rows_per_user": partial(usual, "max_ratio_change", "rows per user"),
    "repeats": partial(usual, "max_ratio_change", "rows per pair of user and item"),
    "quarantine_share": partial(share, "rejected for their values"),
    "bot_share": partial(share, "rejected as bots'"),
    "ignored_share": partial(share, "of ignored events"),
    "conversions_rejected_share": conversions_rejected,
    "nulls": nulls,
    "gap": gap,
    "window": window,
    **SERVED_RULES,
}
# what nobody can want: `force_deploy` does not override these rules
NEVER_FORCED = ("some_lists",)


def _describe_data(metrics: Metrics) -> str:
    try:
        data = metrics["data"]
        unread = len(data["unread_days"])
        return ", ".join(
            [
                _beside_usual(data["rows"], "rows", ",.0f"),
                f"{unread} of the 28 days before missing" if unread else "no day missing",
                _beside_usual(data["quarantine_share"], "of the rows rejected", ".1%"),
                _beside_usual(data["bot_share"], "rejected as bots'", ".1%"),
                _beside_usual(data["eligible"], "eligible items", ",.0f"),
            ]
        )
    except (KeyError, TypeError, ValueError) as error:
        return f"the day's figures cannot be read ({type(error).__name__}: {error})"


def _beside_usual(figure: Mapping[str, Any], words: str, form: str) -> str:
    value, usual = (
        "unknown" if figure[key] is None else format(figure[key], form)
        for key in ("value", "usual")
    )
    return f"{value} {words} (usual: {usual})"


def _check(
    name: str,
    rule: Callable[[str, Metrics, GateSettings], RuleResult],
    metrics: Metrics,
    settings: GateSettings,
) -> RuleResult:
    try:
        return rule(name, metrics, settings)
    except Exception as error:
        sentence = (
            f"rule {name} cannot be checked ({type(error).__name__}: {error}): "
            "look at metrics.json and evaluate again"
        )
        return RuleResult(name, None, None, False, sentence)


def _no_worse(name: str, metrics: Metrics, max_drop: float) -> RuleResult:
    """Compare with the earlier version `name`. Raises ValueError where a figure is missing."""
    metric = _metric(metrics)
    challenger, earlier = number(metrics, "challenger", metric), number(metrics, name, metric)
    upper = number(metrics, "bootstrap", name, "upper")
    if challenger < 0 or earlier < 0:
        raise ValueError(f"{metric} is {min(challenger, earlier)}, below zero")
    change = challenger / earlier - 1 if earlier else 0.0
    may_be_chance = change < -max_drop and upper >= 0
    sentence = f"{metric.upper()} {_percent(change)} against {name} {metrics[f'{name}_version']}"
    if may_be_chance:
        sentence += ", which may be chance"
    return RuleResult(name, change, -max_drop, change >= -max_drop or may_be_chance, sentence)


def _metric(metrics: Metrics) -> str:
    return f"ndcg@{metrics['cutoffs'][-1]}"


def _not_finite(value: Any, name: str = "metrics") -> list[str]:
    """The names of the numbers in nested figures that are NaN or infinite."""
    if isinstance(value, Mapping):
        return [bad for key, inner in value.items() for bad in _not_finite(inner, str(key))]
    return [name] if isinstance(value, float) and not math.isfinite(value) else []


def _percent(share: float) -> str:
    return f"{share * 100:+.1f} %".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
