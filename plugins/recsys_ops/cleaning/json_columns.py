"""JSON: values by path inside a payload column, and texts that name several values."""

from collections.abc import Sequence

import polars as pl

from recsys_ops.cleaning.parsing import as_text

STRING = r'"(?:[^"\\]|\\.)*"'
NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
# all up to the next number outside the strings, and that number; the end counts as one, so that no match begins inside a string
UP_TO_NUMBER = rf'([^"0-9-]+(?:{STRING}[^"0-9-]*)*)({NUMBER}|$)'
OPENS = r"^\s*[\[{]"
# a list of strings and nulls without rare escapes: what any JSON parser reads alike
ITEM = r'\s*(?:"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"|null)\s*'
FLAT_LIST = rf"^\s*\[(?:{ITEM}(?:,{ITEM})*|\s*)\]\s*$"
# what Polars makes of a number that is no 64-bit integer, and what may hold one
MAYBE_ROUNDED = r"^-?[0-9]+[.e]|^[\[{]"


def open_payloads(
    delivered: pl.LazyFrame, paths: Sequence[str]
) -> tuple[pl.LazyFrame, dict[str, pl.Expr]]:
    """Take values out of columns of JSON text.

    delivered : LazyFrame, (n_rows, any).
    paths : ``info.user.id`` is the value ``id`` of the object ``user`` of the object in the column ``info``.
    Returns the frame with a String column for every path, named like it, and for every payload column the condition under which
    its text is not a JSON object; blank text and ``null`` are objects without values. A number is the text that was delivered, a
    list or an object its JSON text, true and false are words, null is null. Of a key that comes twice the last counts.

    Raises ContractError for a payload column that holds no text.
    """
    dtypes = delivered.collect_schema()
    payloads: dict[str, list[str]] = {}
    for path in paths:
        payloads.setdefault(path.partition(".")[0], []).append(path)
    texts = {payload: as_text(payload, dtypes[payload]).str.strip_chars() for payload in payloads}
    frame = (
        delivered.with_columns(
            pl.when(~text.is_in(["", "null"])).then(text).alias(f" {payload} json")
            for payload, text in texts.items()
        )
        .with_columns(_read(_where_it_may_be(path), path).alias(path) for path in paths)
        .with_columns(_read_exactly(path).alias(path) for path in paths)
    )
    return frame, {
        payload: _is_no_object(pl.col(f" {payload} json"), found)
        for payload, found in payloads.items()
    }


def is_nested(text: pl.Expr) -> pl.Expr:
    """Whether a text is a JSON list or object."""
    opens = text.str.contains(OPENS)
    return opens & pl.when(opens).then(text).str.json_path_match("$").is_not_null()


def listed(text: pl.Expr, separator: str) -> pl.Expr:
    """The values that a text names, List(String), trimmed and without blanks, which may leave none; null for blank text.

    Text that begins as JSON must be a list of strings and numbers, or the result has one null value.
    """
    opens = text.str.contains(OPENS)
    several = opens | text.str.contains(separator, literal=True)
    split = pl.when(several & ~opens).then(text).str.split(separator)
    alone = text.str.strip_chars()
    # few texts name several values, and one is cheaper alone
    return (
        pl.when(opens)
        .then(
            _without_blanks(_flat(pl.when(opens).then(text))).fill_null(
                pl.lit([None], pl.List(pl.String))
            )
        )
        .when(several)
        .then(_without_blanks(split))
        .when(alone != "")
        .then(pl.concat_list(alone))
    )


def _where_it_may_be(path: str) -> pl.Expr:
    """The payloads in which the path's last key stands, or may stand with an escape; parsing the others would find nothing."""
    json, key = pl.col(f" {path.partition('.')[0]} json"), path.rpartition(".")[2]
    return pl.when(
        json.str.contains(key, literal=True) | json.str.contains("\\", literal=True)
    ).then(json)


def _read(json: pl.Expr, path: str) -> pl.Expr:
    return json.str.json_path_match("$" + "".join(f"['{key}']" for key in path.split(".")[1:]))


def _read_exactly(path: str) -> pl.Expr:
    """Read again where Polars rounded a number, or refused the payload for one beyond the doubles."""
    read, json = pl.col(path), _where_it_may_be(path)
    unsure = read.is_null() | (read.str.contains(MAYBE_ROUNDED) & ~read.str.contains(FLAT_LIST))
    return pl.when(unsure).then(_read(_numbers_as_text(json, unsure), path)).otherwise(read)


def _numbers_as_text(json: pl.Expr, where: pl.Expr) -> pl.Expr:
    """The same JSON with every number as a string, because Polars reads numbers as doubles; empty elsewhere."""
    # not null: Polars replaces in what lies under a null, too
    return (
        pl.when(where)
        .then(json)
        .otherwise(pl.lit(""))
        .str.replace_all(UP_TO_NUMBER, '$1"$2"')
        .str.strip_suffix('""')
    )


def _is_no_object(json: pl.Expr, paths: list[str]) -> pl.Expr:
    # whatever has a value is an object
    unsure = json.is_not_null() & pl.all_horizontal(pl.col(path).is_null() for path in paths)
    return unsure & ~_numbers_as_text(json, unsure).str.json_path_match("$").str.starts_with(
        "{"
    ).fill_null(False)


def _flat(text: pl.Expr) -> pl.Expr:
    """The values of a list of strings and numbers; null for any other JSON."""
    is_flat = text.str.contains(FLAT_LIST)
    rewritten = _numbers_as_text(text, ~is_flat).str.json_path_match("$")
    compact = pl.when(is_flat).then(text).otherwise(rewritten)
    return (
        pl.when(compact.str.contains(FLAT_LIST)).then(compact).str.json_decode(pl.List(pl.String))
    )


def _without_blanks(values: pl.Expr) -> pl.Expr:
    trimmed = pl.element().str.strip_chars()
    return values.list.eval(trimmed.filter(trimmed != ""))
