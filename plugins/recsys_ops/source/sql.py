"""SQL files: sent to the database as they are written, but for ``:start`` and ``:end``."""

import re
from pathlib import Path

from recsys_ops.errors import SettingsError

_STRING, _ESCAPED_STRING = r"'(?:[^']|'')*'", r"'(?:[^'\\]|\\.|'')*'"
_QUOTED = [r'"(?:[^"]|"")*"', r"`[^`]*`"]
# what is no code, by database; MySQL's backslash escapes, and its double quotes are strings
_STRINGS = {
    "postgresql": [
        rf"\b[eE]{_ESCAPED_STRING}",
        r"\$(?P<tag>\w*)\$.*?\$(?P=tag)\$",
        _STRING,
        *_QUOTED,
    ],
    "mysql": [_ESCAPED_STRING, _ESCAPED_STRING.replace("'", '"'), *_QUOTED],
    "sqlite": [_STRING, *_QUOTED],
}
_COMMENTS = {
    "postgresql": r"--[^\n]*|/\*.*?\*/",
    "mysql": r"--(?=\s)[^\n]*|#[^\n]*|/\*.*?\*/",
    "sqlite": r"--[^\n]*|/\*.*?\*/",
}


def read_sql(file: Path) -> str:
    """The text of a SQL file, without the byte order mark that some editors put before it.

    Raises SettingsError if the file is missing or is not UTF-8, or holds no query.
    """
    try:
        sql = file.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(
            f"no SQL file at {file}: put it there, or set RECSYS_INCLUDE to its folder's parent"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: save it in this encoding") from error
    if not as_query(sql, "postgresql"):
        raise SettingsError(f"{file} holds no query: write one")
    return sql


def as_query(sql: str, backend: str) -> str:
    """The query as `sqlalchemy.text` takes it.

    Only a colon in the code names a parameter; those in strings, quoted names and comments are
    escaped. A semicolon at the end, and comments behind it, are left out.
    """
    family = "mysql" if backend == "mariadb" else backend
    not_code = re.compile(
        f"(?P<comment>{_COMMENTS[family]})|{'|'.join(_STRINGS[family])}", re.DOTALL
    )
    code = not_code.sub(lambda match: (" " if match["comment"] else "x") * len(match[0]), sql)
    query = sql[: len(re.sub(r"[;\s]+\Z", "", code))]
    return not_code.sub(lambda match: match[0].replace(":", r"\:"), query)
