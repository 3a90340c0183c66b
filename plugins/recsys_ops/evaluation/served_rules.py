"""The gate rules about what will be served: lists, and the catalogue that they are made from."""

import math
from collections.abc import Callable, Mapping, Sequence

from recsys_ops.evaluation.list_figures import LOST
from recsys_ops.evaluation.rule_result import Metrics, RuleResult, finite_number, number
from recsys_ops.settings import GateSettings

_HALF = 0.5
# in a small shop so many items may be sold out from one day to the next
_FEW_ITEMS = 5


def some_lists(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """Users have lists, and the popular list has items."""
    users = number(metrics, "lists", "counts", "recommendations")
    popular = number(metrics, "lists", "popular")
    sentence = f"users with a list: {users:,.0f}, popular items: {popular:.0f}"
    if not (passed := users > 0 and popular > 0):
        sentence += ": a version without lists never goes live"
    return RuleResult(name, min(users, popular), 1, passed, sentence)


def list_counts(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The version has at least half as many lists of each kind as the champion, rounded down.

    It shows that purchases, categories or users are missing, of which a kind of list is made.
    """
    if reason := _not_comparable(metrics, set(metrics["lists"]["changed_settings"])):
        return RuleResult(name, None, _HALF, True, reason)
    counts = {
        kind: (number(metrics, "lists", "counts", kind), finite_number(before, kind))
        for kind, before in metrics["champion_lists"]["counts"].items()
    }
    kind = min(counts, key=lambda kind: counts[kind][0] / max(1, counts[kind][1]))
    now, before = counts[kind]
    sentence = (
        f"lists of the kind {kind}: {now:,.0f}, the champion has {before:,.0f}: at least half as "
        "many needed"
    )
    passed = all(now >= before // 2 for now, before in counts.values())
    return RuleResult(name, now / max(1, before), _HALF, passed, sentence)


def popular_list(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The popular list, which a stranger gets, has half of the places that it could fill.

    It could fill `lists.top_n` places, or as many as the catalogue has items in the matrices, for
    sale or not.
    """
    items = number(metrics, "lists", "popular")
    known, top_n = number(metrics, "data", "known_items"), number(metrics, "lists", "top_n")
    least = math.ceil(min(known, top_n) * _HALF)
    sentence = (
        f"a stranger gets {items:.0f} items, at least {least} needed: the catalogue has "
        f"{known:,.0f} of the items that visitors see"
    )
    return RuleResult(name, items, least, items >= least, sentence)


def full_lists(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The share of the users with a full list is at most `max_share_change` below the champion's.

    A full list has `lists.top_n` items.
    """
    most = settings.max_share_change
    shorten = {"top_n", "exclude_seen", "exclude_categories", "max_per_category"}
    if reason := _not_comparable(metrics, shorten & set(metrics["lists"]["changed_settings"])):
        return RuleResult(name, None, -most, True, reason)
    value, before = (number(metrics, lists, "full_share") for lists in ("lists", "champion_lists"))
    sentence = (
        f"{value:.1%} of the users have a full list, with the champion {before:.1%}: "
        f"at most {most:.0%} fewer"
    )
    return RuleResult(name, value - before, -most, value - before >= -most, sentence)


def lost_lists(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """At most the share `max_lost_lists` of the champion's lists lost many of their items.

    An item is lost that is no longer eligible; see `recsys_ops.evaluation.list_figures.LOST`.
    """
    most = settings.max_lost_lists
    hide = {"exclude_categories", "sell_unmanaged_stock"}
    if metrics["champion_data"] is None:
        return RuleResult(name, None, most, True, "no champion whose lists could lose items")
    if changed := sorted(hide & set(metrics["lists"]["changed_settings"])):
        return RuleResult(name, None, most, True, _changed_sentence(changed))
    value = number(metrics, "lists", "lost_share")
    sentence = (
        f"{value:.1%} of the champion's lists lost over {LOST:.0%} of their items, which are no "
        f"longer eligible: at most {most:.0%}"
    )
    return RuleResult(name, value, most, value <= most, sentence)


def eligible(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The catalogue has enough eligible items.

    At least `min_eligible_share` of those of the champion's day, unless only a few are missing, and
    at least 1/`max_day_change` of the 28-day median.
    """
    value = number(metrics, "data", "eligible", "value")
    limits: list[tuple[float, str]] = []
    before = _champion_figure(name, metrics)
    if before is not None and "sell_unmanaged_stock" not in metrics["lists"]["changed_settings"]:
        least = settings.min_eligible_share
        limits.append(
            (
                min(before * least, before - _FEW_ITEMS),
                f"on the champion's day {before:,.0f}: at least {least:.0%} needed",
            )
        )
    if metrics["data"]["eligible"]["usual"] is not None:
        usual, factor = number(metrics, "data", "eligible", "usual"), settings.max_day_change
        limits.append(
            (usual / factor, f"usual are {usual:,.0f}: at most {factor:.3g} times as few")
        )
    least, words = max(limits, default=(0.0, "nothing to compare with"))
    return RuleResult(name, value, least, value >= least, f"eligible items: {value:,.0f}, {words}")


def unmanaged_share(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The share of the items without a figure of stock rose by at most `max_share_change`.

    These items are sold (`lists.sell_unmanaged_stock`), also if only the join to the stock failed.
    """
    value, before = number(metrics, "data", name, "value"), _baselines(name, metrics)
    most = settings.max_share_change
    if not before:
        return RuleResult(name, value, None, True, "no stock of earlier days to compare with")
    sentence = (
        f"{value:.1%} of the items have no figure of stock, before it was {max(before):.1%}: "
        f"at most {most:.0%} more"
    )
    rise = value - max(before)
    return RuleResult(name, rise, most, rise <= most, sentence)


def known_share(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The catalogue has the items of most of the day's rows.

    At least of the share `min_known_share`, and of at most `max_share_change` less than before.
    """
    value, before = number(metrics, "data", name, "value"), _baselines(name, metrics)
    least = settings.min_known_share
    if before:
        least = max(least, min(before) - settings.max_share_change)
    was = f", before it was {min(before):.1%}" if before else ""
    sentence = (
        f"the catalogue has the items of {value:.1%} of the day's rows{was}: "
        f"at least {least:.1%} needed"
    )
    return RuleResult(name, value, least, value >= least, sentence)


def window_known_share(name: str, metrics: Metrics, settings: GateSettings) -> RuleResult:
    """The same for the window's rows, against the champion's window, by half of that change.

    A window changes slowly; where ids were renamed, the day's rows have the new ones.
    """
    value, before = number(metrics, "data", name), _champion_figure(name, metrics)
    if before is None:
        return RuleResult(name, value, None, True, "no champion's window to compare with")
    least = before - settings.max_share_change / 2
    sentence = (
        f"the catalogue has the items of {value:.1%} of the window's rows, of the champion's "
        f"window {before:.1%}: at least {least:.1%} needed"
    )
    return RuleResult(name, value, least, value >= least, sentence)


SERVED_RULES: Mapping[str, Callable[[str, Metrics, GateSettings], RuleResult]] = {
    "some_lists": some_lists,
    "list_counts": list_counts,
    "popular_list": popular_list,
    "full_lists": full_lists,
    "lost_lists": lost_lists,
    "eligible": eligible,
    "unmanaged_share": unmanaged_share,
    "known_share": known_share,
    "window_known_share": window_known_share,
}


def _not_comparable(metrics: Metrics, changed: set[str]) -> str | None:
    """Why the lists cannot be compared with the champion's; None if they can.

    changed : the settings of the lists that were changed since and matter here
    """
    if metrics["champion_data"] is None:
        return "no champion whose lists to compare with"
    if metrics["champion_lists"] is None:
        return "the champion's lists cannot be compared: an older release has not counted them"
    return _changed_sentence(sorted(changed)) if changed else None


def _changed_sentence(changed: Sequence[str]) -> str:
    return f"the champion's lists cannot be compared: lists.{', lists.'.join(changed)} was changed"


def _champion_figure(name: str, metrics: Metrics) -> float | None:
    """A figure of the champion's day; None without champion, or where its release had none."""
    if metrics["champion_data"] is None:
        return None
    figure = metrics["champion_data"][name]
    value = figure["value"] if isinstance(figure, Mapping) else figure
    return None if value is None else finite_number(value, f"champion_data.{name}")


def _baselines(name: str, metrics: Metrics) -> list[float]:
    """What a figure was before: its 28-day median and that of the champion's day, where known.

    After a change that somebody has forced the champion's day is like the new ones.
    """
    usual = metrics["data"][name]["usual"]
    found = (None if usual is None else finite_number(usual, name), _champion_figure(name, metrics))
    return [value for value in found if value is not None]
