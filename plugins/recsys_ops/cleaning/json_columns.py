"""JSON: values by their path in a payload column, and texts that name several values."""

from collections.abc import Sequence

import polars as pl

from recsys_ops.cleaning.parsing import as_text
from recsys_ops.cleaning.result import hidden_column

STRING = r'"(?:[^"\\]|\\.)*"'
NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
# everything up to the next number outside strings, and that number. The end of the text counts as
# a number, so that no match begins inside a string.
UP_TO_NUMBER = rf'([^"0-9-]+(?:{STRING}[^"0-9-]*)*)({NUMBER}|$)'
OPENS = r"^\s*[\[{]"
# a list of strings and nulls without rare escapes: every JSON parser reads it in the same way
ITEM = r'\s*(?:"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"|null)\s*'
FLAT_LIST = rf"^\s*\[(?:{ITEM}(?:,{ITEM})*|\s*)\]\s*$"
# an object in a list: its lists and objects are at most eight deep
_PLAIN = rf'[^\[\]{{}}"]+|{STRING}'
_NESTED = _PLAIN
for _ in range(8):
    _NESTED = rf"{_PLAIN}|[\[{{](?:{_NESTED})*[\]}}]"
OBJECT = rf"\{{(?:{_NESTED})*\}}"
OBJECTS = r"^\[\s*(?:\{\}\s*(?:,\s*\{\}\s*)*)?\]$"
# the text of a number that Polars may have rounded, or of a value that may hold such a number
MAYBE_ROUNDED = r"^-?[0-9]+[.e]|^[\[{]"


def open_payloads(
    delivered: pl.LazyFrame, paths: Sequence[str]
) -> tuple[pl.LazyFrame, dict[str, pl.Expr]]:
    """Read values from columns of JSON text.

    delivered : LazyFrame, (n_rows, any).
    paths : ``info.user.id`` is the value ``id`` of the object ``user`` of the object in the column
        ``info``; ``info.items[].id`` is the value ``id`` of the object in the column `elements_of`
        ``info.items``.

    Returns the frame with a String column for every path, named like the path, and for every
    payload column the condition under which its text is not a JSON object. Blank text and ``null``
    count as objects without values. A number becomes the delivered text, a list or an object its
    JSON text, true and false become words, null becomes null. If a key occurs twice, the last
    counts.

    Raises ContractError for a payload column that holds no text.
    """
    dtypes = delivered.collect_schema()
    payloads: dict[str, list[str]] = {}
    for path in paths:
        payloads.setdefault(_payload(path), []).append(path)
    texts = {payload: as_text(payload, dtypes[payload]).str.strip_chars() for payload in payloads}
    frame = (
        delivered.with_columns(
            pl.when(~text.is_in(["", "null"])).then(text).alias(_json_column(payload))
            for payload, text in texts.items()
        )
        .with_columns(_read(_candidates(path), path).alias(path) for path in paths)
        .with_columns(_read_exactly(path).alias(path) for path in paths)
    )
    return frame, {
        payload: _is_no_object(pl.col(_json_column(payload)), payload_paths)
        for payload, payload_paths in payloads.items()
    }


def elements_of(list_: str) -> str:
    """The name of the column for the elements of a list."""
    return hidden_column(f"{list_}[]")


def objects(text: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """The objects in a JSON list, and whether the text is no list of objects.

    The first is List(String), the objects' JSON as written and not checked; null for blank text and
    ``null``.
    """
    written = text.str.strip_chars()
    written = pl.when(~written.is_in(["", "null"])).then(written)
    is_broken = ~written.str.replace_all(OBJECT, "{}").str.contains(OBJECTS)
    return written.str.extract_all(OBJECT), is_broken


def _payload(path: str) -> str:
    """The column that holds the JSON in which a path is read."""
    list_, is_in_list, _ = path.partition("[].")
    return elements_of(list_) if is_in_list else path.partition(".")[0]


def _keys(path: str) -> list[str]:
    return path.rpartition("[].")[2].split(".") if "[]." in path else path.split(".")[1:]


def _json_column(payload: str) -> str:
    return hidden_column(f"{payload} json")


def is_nested(text: pl.Expr) -> pl.Expr:
    """Whether a text is a JSON list or object."""
    opens = text.str.contains(OPENS)
    return opens & pl.when(opens).then(text).str.json_path_match("$").is_not_null()


def listed(text: pl.Expr, separator: str) -> pl.Expr:
    """The values that a text names, as List(String); null for blank text.

    The values are trimmed and blank ones left out, so the list can be empty. Text that begins like
    JSON must be a list of strings and numbers; otherwise the result is a list with one null.
    """
    opens = text.str.contains(OPENS)
    several = opens | text.str.contains(separator, literal=True)
    split = pl.when(several & ~opens).then(text).str.split(separator)
    alone = text.str.strip_chars()
    # few texts name several values, and a single value is cheaper to read
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


def _candidates(path: str) -> pl.Expr:
    """The payloads that may contain the path's last key; the others are not parsed."""
    json, key = pl.col(_json_column(_payload(path))), path.rpartition(".")[2]
    return pl.when(
        json.str.contains(key, literal=True) | json.str.contains("\\", literal=True)
    ).then(json)


def _read(json: pl.Expr, path: str) -> pl.Expr:
    return json.str.json_path_match("$" + "".join(f"['{key}']" for key in _keys(path)))


def _read_exactly(path: str) -> pl.Expr:
    """Read again where Polars rounded a number, or failed at one that is too large for a double."""
    read, json = pl.col(path), _candidates(path)
    unsure = read.is_null() | (read.str.contains(MAYBE_ROUNDED) & ~read.str.contains(FLAT_LIST))
    return pl.when(unsure).then(_read(_numbers_as_text(json, unsure), path)).otherwise(read)


def _numbers_as_text(json: pl.Expr, where: pl.Expr) -> pl.Expr:
    """The JSON with its numbers as strings, because Polars reads numbers as doubles."""
    # not null, because Polars also replaces in the text that lies under a null
    return (
        pl.when(where)
        .then(json)
        .otherwise(pl.lit(""))
        .str.replace_all(UP_TO_NUMBER, '$1"$2"')
        .str.strip_suffix('""')
    )


def _is_no_object(json: pl.Expr, paths: list[str]) -> pl.Expr:
    # a payload in which a path has a value is an object
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
