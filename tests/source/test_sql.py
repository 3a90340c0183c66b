"""SQL files are sent as they are written, but for their two parameters."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from support.databases import DAY, make, read

from recsys_ops.errors import DataError, SettingsError
from recsys_ops.source.sql import as_query, read_sql

BACKENDS = ["postgresql", "mysql", "mariadb", "sqlite"]
# each of these broke the query, or changed it in silence
ODD = """-- The events: from :start up to :finish, it's 100 % of them; each once
SELECT id, 'a:b :c {%} {{user_id}} {# no #} 12:30; 50% -- ' AS note /* no :value; 'here */
FROM e -- a "quoted" comment;
WHERE id LIKE '{%}' AND at >= :start AND at < :end
;
-- the end; of :it
"""


def rendered(sql: str, backend: str) -> str:
    return str(sa.text(as_query(sql, backend)).compile())


@pytest.fixture(params=["database_url", "mariadb_url", "sqlite_url"])
def url(request: pytest.FixtureRequest) -> sa.URL:
    return sa.make_url(request.getfixturevalue(request.param))


def test_comments_strings_and_a_last_semicolon_do_no_harm(url: sa.URL, tmp_path: Path) -> None:
    make(
        url,
        "CREATE TABLE e (id varchar(9), at varchar(30))",
        "INSERT INTO e VALUES ('{7}', '2026-01-02 05:00:00'), ('{8}', '2026-01-01 05:00:00'), "
        "('9', '2026-01-02 05:00:00')",
    )
    file = tmp_path / "events.sql"
    at = "CAST(at AS timestamptz)" if url.get_backend_name() == "postgresql" else "at"
    file.write_text(ODD.replace("at >=", f"{at} >=").replace("at <", f"{at} <"), "utf-8-sig")
    assert read(url, read_sql(file), **DAY).rows() == [
        ("{7}", "a:b :c {%} {{user_id}} {# no #} 12:30; 50% -- ")
    ]


def test_a_cast_with_two_colons_and_an_escaped_string_of_postgresql(database_url: str) -> None:
    sql = (
        r"""SELECT '7'::int AS a, E'it\'s :b' AS b, $tag$ :c; '$tag$ AS c, 'C:\' AS d, ':e' AS e;"""
    )
    assert read(database_url, sql).row(0) == (7, "it's :b", " :c; '", "C:\\", ":e")


def test_the_strings_of_mysql_have_backslashes_and_double_quotes(mariadb_url: sa.URL) -> None:
    sql = r"""SELECT 'it\'s :b' AS a, "say \":c" AS b, 5--3 AS c # the :end
    ;"""
    assert read(mariadb_url, sql).row(0) == ("it's :b", 'say ":c', 8)


@pytest.mark.parametrize("backend", BACKENDS)
@given(content=st.text(st.sampled_from(':;\\ab1 %-{}\n"')))
def test_what_stands_in_a_string_is_sent_unchanged(backend: str, content: str) -> None:
    literal = content.replace("\\", "\\\\") if backend in ("mysql", "mariadb") else content
    sql = f"SELECT '{literal}' AS a"
    assert rendered(f"{sql} ;\n-- {content.splitlines()[:1]}", backend) == sql


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_what_stands_in_the_code_is_a_parameter(backend: str) -> None:
    sql = "SELECT ':a', \":b\", `:c`, x /* :d */ FROM t WHERE t > :start -- :e"
    assert list(sa.text(as_query(sql, backend)).compile().params) == ["start"]


def test_a_file_that_is_missing_empty_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no SQL file at .*/gone\.sql: put it there"):
        read_sql(tmp_path / "gone.sql")
    file = tmp_path / "old.sql"
    file.write_text("-- SELECT 1;\n", "utf-8-sig")
    with pytest.raises(SettingsError, match=r"old\.sql holds no query"):
        read_sql(file)
    for encoding in ("latin-1", "utf-16"):
        file.write_text("SELECT 'Größe'", encoding)
        with pytest.raises(SettingsError, match=r"old\.sql is not UTF-8: save it"):
            read_sql(file)


def test_two_queries_in_a_file_are_refused(url: sa.URL) -> None:
    with pytest.raises(DataError, match=r"refused the query: .*; check include/sql"):
        read(url, "SELECT 1 AS a; SELECT 2 AS a;")
