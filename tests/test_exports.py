"""The how-to "Use an export": each query and contract, as the page has them, on such an export."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from support.cleaning_rows import Collected, collected
from support.databases import make

from recsys_ops.cleaning import align_schema, fix_types, load_contract
from recsys_ops.source.slices import extract_slices

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "exports.md"
BLOCK = re.compile(r'^```(?:sql|yaml) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCKS = dict(BLOCK.findall(PAGE.read_text()))
DAY = date(2026, 1, 31)
# the SHA-256 of guest@mail.example
GUEST = "18705b6e3e9115340d9f8e55e78c8721a4792141d6ba6e189d33894a74d919d9"
ALICE, COOKIE = "af1c3c5d7e9f0a2b", "0a1b2c3d4e5f6071"
# section, database → the rows after `align_schema` and after `fix_types`
Clean = Callable[[str, str | sa.URL], tuple[Collected, Collected]]


@pytest.fixture
def cleaned(tmp_path: Path) -> Clean:
    """Runs a section's query and contract on a database, up to `fix_types`."""

    def run(section: str, url: str | sa.URL) -> tuple[Collected, Collected]:
        (tmp_path / "contract.yaml").write_text(BLOCKS[f"{section}: include/contract.yaml"])
        contract = load_contract(tmp_path / "contract.yaml")
        delivered, _ = extract_slices(
            sa.make_url(url),
            BLOCKS[f"{section}: include/sql/extract_events.sql"],
            [DAY],
            hours=24,
            connections=1,
            timeout_s=30,
            folder=tmp_path,
        )
        aligned = align_schema(delivered, contract)
        fixed = fix_types(aligned.kept, contract)
        return collected(aligned), collected(fixed)

    return run


def rows(fixed: Collected, *more: str) -> list[tuple[Any, ...]]:
    columns = ("event_type", "event_id", "user_id", "item_id", "quantity", "value", *more)
    return fixed.kept.select(columns).sort("event_id", "item_id").rows()


def reasons(step: Collected) -> list[tuple[Any, ...]]:
    return step.rejected.select("reason", "column").sort("reason").rows()


def test_ga4(database_url: str, cleaned: Clean) -> None:
    event = {
        "event_date": "20260130",
        "event_timestamp": "1769767200000000",
        "event_name": "view_item",
        "event_params": [
            {"key": "ga_session_id", "value": {"int_value": "1769767100"}},
            {"key": "traffic_type", "value": {"string_value": "internal"}},
        ],
        "event_bundle_sequence_id": "77",
        "batch_event_index": "1",
        "user_pseudo_id": "111.222",
        "device": {"category": "mobile"},
        "items": [],
    }
    item = {"item_id": "SKU-1", "item_name": 'A "red" hat', "price": 19.9, "item_params": []}
    ecommerce = {"transaction_id": "T-1", "total_item_quantity": "3", "purchase_revenue": 59.7}
    two = [item | {"quantity": "2"}, item | {"item_id": "SKU-2", "quantity": "1", "price": 20}]
    lines = [
        event | {"items": [item]},
        event | {"event_name": "page_view", "event_params": []},
        event | {"event_name": "purchase", "user_id": "42", "ecommerce": ecommerce, "items": two},
        event
        | {
            "event_name": "purchase",
            "user_id": "42",
            "ecommerce": ecommerce,
            "items": two,
            "event_timestamp": "1769767300000000",
        },
        event | {"event_name": "add_to_cart", "user_id": "(not set)", "items": [item] * 2},
        event | {"event_name": "add_to_cart", "user_pseudo_id": None, "items": [item]},
        event | {"event_name": "begin_checkout", "items": [{"item_id": "(not set)"}]},
    ]
    with psycopg.connect(
        sa.make_url(database_url).set(drivername="postgresql").render_as_string(False)
    ) as connection:
        connection.execute(BLOCKS["GA4: tables"])
        for _ in range(2):  # a file that is loaded again adds nothing
            create, copy, insert = BLOCKS["GA4: load"].splitlines()
            connection.execute(create)
            with connection.cursor().copy(
                re.sub(r"\\copy landing FROM '.*?'", "COPY landing FROM STDIN", copy)
            ) as file:
                file.write("".join(f"{json.dumps(line)}\n" for line in lines))
            connection.execute(insert)
            connection.execute("DROP TABLE landing")
        connection.execute("UPDATE ga4_events SET loaded_at = '2026-01-31 05:00:00Z'")
    aligned, fixed = cleaned("GA4", database_url)
    cart, view = (f"{name}|111.222.1769767200000000.77.1" for name in ("add_to_cart", "view_item"))
    assert rows(fixed, "role") == [
        *[("cart", cart, "111.222", "SKU-1", 1, 19.9, "internal")] * 2,
        *[("purchase", "purchase|T-1", "42", "SKU-1", 2, 19.9, "internal")] * 2,
        *[("purchase", "purchase|T-1", "42", "SKU-2", 1, 20, "internal")] * 2,
        ("view", view, "111.222", "SKU-1", 1, 19.9, "internal"),
    ]
    assert reasons(aligned) == []
    assert reasons(fixed) == [("bad_id", "item_id"), ("missing", "user_id")]


def test_shopify(database_url: str, cleaned: Clean) -> None:
    line = {"id": 11, "product_id": 7001, "variant_id": 9001, "quantity": 2, "price": "19.90"}
    tax = {"tax_lines": [{"price_set": {"shop_money": {"amount": "3.18", "currency_code": "EUR"}}}]}
    known, guest = '{"id": 5550001112223, "email": "a@mail.example"}', "null"
    lines = [
        line | tax,
        line | {"id": 12, "variant_id": 9002},
        line | {"id": 13, "product_id": None},
    ]
    orders = [
        (8001112223334, "10:00", None, False, known, "a@mail.example", lines),
        (8002, "11:00", None, False, guest, " Guest@mail.example", [line]),
        (8003, "12:00", "2026-01-31 12:30Z", False, known, None, [line]),
        (8004, "13:00", None, True, known, None, [line]),
        (8005, "14:00", None, False, guest, None, [line]),
        (8006, "15:00", None, "NULL", known, None, [line]),
    ]
    make(
        database_url,
        "CREATE TABLE orders (id bigint, created_at timestamptz, processed_at timestamptz, "
        "cancelled_at timestamptz, test boolean, customer jsonb, email text, line_items jsonb, "
        "client_details jsonb, currency text, financial_status text, source_name text)",
        *(
            f"INSERT INTO orders VALUES ({number}, '2026-01-31 {time}:00Z', NULL, "
            f"{_sql(cancelled)}, {test}, '{customer}', {_sql(email)}, '{json.dumps(items)}', "
            """'{"browser_ip": "192.0.2.1", "user_agent": "Firefox"}', 'EUR', 'paid', 'web')"""
            for number, time, cancelled, test, customer, email, items in orders
        ),
    )
    aligned, fixed = cleaned("Shopify", database_url)
    assert rows(fixed, "user_agent", "ip") == [
        ("purchase", order, user, "7001", 2, 19.9, "Firefox", "192.0.2.1")
        for order, user in [
            ("8001112223334|11", "5550001112223"),
            ("8001112223334|12", "5550001112223"),
            ("8002|11", GUEST),
            ("8006|11", "5550001112223"),
        ]
    ]
    assert reasons(aligned) == []
    assert reasons(fixed) == [("missing", "item_id"), ("missing", "user_id")]


def _sql(text: str | None) -> str:
    return "NULL" if text is None else f"'{text}'"


def test_woocommerce(mariadb_url: sa.URL, cleaned: Clean) -> None:
    make(
        mariadb_url,
        "CREATE TABLE wp_wc_orders (id bigint unsigned, status varchar(20), currency varchar(10), "
        "type varchar(20), tax_amount decimal(26,8), total_amount decimal(26,8), "
        "customer_id bigint unsigned, billing_email varchar(320), date_created_gmt datetime, "
        "date_updated_gmt datetime, parent_order_id bigint unsigned, payment_method varchar(100), "
        "payment_method_title text, transaction_id varchar(100), ip_address varchar(100), "
        "user_agent text, customer_note text)",
        "CREATE TABLE wp_wc_order_product_lookup (order_item_id bigint unsigned, "
        "order_id bigint unsigned, product_id bigint unsigned, variation_id bigint unsigned, "
        "customer_id bigint unsigned, date_created datetime, product_qty int, "
        "product_net_revenue double, product_gross_revenue double, coupon_amount double, "
        "tax_amount double, shipping_amount double, shipping_tax_amount double)",
        *(
            f"INSERT INTO wp_wc_orders VALUES ({number}, '{status}', 'EUR', '{kind}', 0, 25, "
            f"{customer}, {_sql(email)}, '2026-01-{time}', NULL, 0, '', '', '', '192.0.2.1', "
            "'Firefox', '')"
            for number, status, kind, customer, email, time in [
                (1, "wc-completed", "shop_order", 42, "a@mail.example", "31 23:59:59"),
                (2, "wc-processing", "shop_order", 0, " Guest@mail.example", "31 00:00:00"),
                (3, "wc-cancelled", "shop_order", 42, "a@mail.example", "31 12:00:00"),
                (4, "wc-completed", "shop_order_refund", 42, "a@mail.example", "31 12:00:00"),
                (5, "wc-completed", "shop_order", 42, "a@mail.example", "30 23:59:59"),
                (6, "wc-completed", "shop_order", 0, None, "31 12:00:00"),
            ]
        ),
        *(
            f"INSERT INTO wp_wc_order_product_lookup VALUES ({line}, {order}, {product}, 0, 1, "
            f"'2026-02-01 00:59:59', {pieces}, {net}, 0, 0, 0, 0, 0)"
            for line, order, product, pieces, net in [
                (101, 1, 7001, 2, 25),
                (102, 1, 7002, 3, 25),
                (103, 2, 7001, 1, 12.5),
                (104, 3, 7001, 1, 12.5),
                (105, 4, 7001, -1, -12.5),
                (106, 5, 7001, 1, 12.5),
                (107, 6, 7001, 1, 12.5),
                (108, 1, 0, 1, 12.5),
            ]
        ),
    )
    aligned, fixed = cleaned("WooCommerce", mariadb_url)
    late, early = (datetime(2026, 1, 31, *at, tzinfo=UTC) for at in ((23, 59, 59), (0, 0, 0)))
    assert rows(fixed, "email", "event_time") == [
        ("purchase", "1|101", "42", "7001", 2, 12.5, "a@mail.example", late),
        ("purchase", "1|102", "42", "7002", 3, pytest.approx(25 / 3), "a@mail.example", late),
        ("purchase", "2|103", GUEST, "7001", 1, 12.5, "Guest@mail.example", early),
    ]
    assert reasons(aligned) == []
    assert reasons(fixed) == [("missing", "item_id"), ("nobody", "user_id")]


def test_magento(mariadb_url: sa.URL, cleaned: Clean) -> None:
    make(
        mariadb_url,
        "CREATE TABLE report_event_types (event_type_id smallint, event_name varchar(64), "
        "customer_login smallint)",
        "INSERT INTO report_event_types VALUES (1, 'catalog_product_view', 0), "
        "(2, 'sendfriend_product', 0), (3, 'catalog_product_compare_add_product', 0), "
        "(4, 'checkout_cart_add_product', 0), (5, 'wishlist_add_product', 1), "
        "(6, 'wishlist_share', 1)",
        "CREATE TABLE report_event (event_id bigint, logged_at timestamp, event_type_id smallint, "
        "object_id int, subject_id int, subtype smallint, store_id smallint)",
        "INSERT INTO report_event VALUES (1, '2026-01-31 10:00:00', 1, 501, 7, 1, 1), "
        "(2, '2026-01-31 10:01:00', 4, 501, 7, 0, 1), (3, '2026-01-31 10:02:00', 5, 502, 7, 0, 1), "
        "(4, '2026-01-31 10:03:00', 3, 502, 7, 0, 1), (5, '2026-01-30 10:00:00', 1, 501, 7, 0, 1), "
        "(6, '2026-01-31 10:04:00', 1, 501, 0, 1, 1)",
        "CREATE TABLE sales_order (entity_id int, state varchar(32), status varchar(32), "
        "store_id smallint, customer_id int, customer_email varchar(128), "
        "customer_is_guest smallint, base_currency_code varchar(3), "
        "order_currency_code varchar(3), remote_ip varchar(45), created_at timestamp, "
        "updated_at timestamp)",
        *(
            f"INSERT INTO sales_order VALUES ({number}, {_sql(state)}, 'processing', 1, "
            f"{customer}, '{email}', {int(customer == 'NULL')}, 'EUR', 'USD', '192.0.2.1', "
            "'2026-01-31 12:00:00', '2026-01-31 12:00:00')"
            for number, state, customer, email in [
                (31, None, "7", "a@mail.example"),
                (32, "new", "NULL", "Guest@mail.example "),
                (33, "canceled", "7", "a@mail.example"),
            ]
        ),
        "CREATE TABLE sales_order_item (item_id int, order_id int, parent_item_id int, "
        "store_id smallint, created_at timestamp, product_id int, product_type varchar(255), "
        "sku varchar(255), name varchar(255), qty_ordered decimal(12,4), "
        "qty_canceled decimal(12,4), qty_refunded decimal(12,4), price decimal(20,4), "
        "base_price decimal(20,4))",
        *(
            f"INSERT INTO sales_order_item VALUES ({line}, {order}, {parent}, 1, "
            f"'2026-01-31 12:00:00', {product}, '{kind}', 'hat-M', 'Hat', {pieces}, 0, 0, "
            f"{price} * 1.1, {price})"
            for line, order, parent, product, kind, pieces, price in [
                (901, 31, "NULL", 501, "configurable", 2, "19.9000"),
                (902, 31, "901", 502, "simple", 2, "0.0000"),
                (903, 32, "NULL", 503, "simple", "0.1500", "8.5000"),
                (904, 33, "NULL", 503, "simple", 1, "8.5000"),
            ]
        ),
    )
    aligned, fixed = cleaned("Magento", mariadb_url)
    assert rows(fixed) == [
        ("purchase", "order|901", "7", "501", 2, 19.9),
        ("purchase", "order|903", GUEST, "503", 0.15, 8.5),
        ("view", "report|1", "visitor-7", "501", 1, None),
        ("cart", "report|2", "7", "501", 1, None),
        ("wishlist", "report|3", "7", "502", 1, None),
    ]
    assert reasons(aligned) == []
    assert reasons(fixed) == [("missing", "user_id")]


def test_matomo(mariadb_url: sa.URL, cleaned: Clean) -> None:
    make(
        mariadb_url,
        "CREATE TABLE matomo_log_action (idaction int unsigned, name varchar(4096), "
        "hash int unsigned, type tinyint unsigned, url_prefix tinyint)",
        "INSERT INTO matomo_log_action VALUES (1, 'SKU-1', 1, 5, NULL), (2, 'SKU-2', 2, 5, NULL), "
        "(3, 'shop.example/hat', 3, 1, 0)",
        "CREATE TABLE matomo_log_visit (idvisit bigint unsigned, idsite int unsigned, "
        "idvisitor binary(8), visit_last_action_time datetime, config_id binary(8), "
        "location_ip varbinary(16), user_id varchar(200), visit_first_action_time datetime)",
        "CREATE TABLE matomo_log_link_visit_action (idlink_va bigint unsigned, "
        "idsite int unsigned, idvisitor binary(8), idvisit bigint unsigned, "
        "idaction_url_ref int unsigned, idaction_name int unsigned, idaction_url int unsigned, "
        "server_time datetime, idpageview char(6), idaction_product_cat int unsigned, "
        "idaction_product_name int unsigned, product_price double, "
        "idaction_product_sku int unsigned)",
        "CREATE TABLE matomo_log_conversion_item (idsite int unsigned, idvisitor binary(8), "
        "server_time datetime, idvisit bigint unsigned, idorder varchar(100), "
        "idaction_sku int unsigned, idaction_name int unsigned, idaction_category int unsigned, "
        "price double, quantity int unsigned, deleted tinyint unsigned)",
        *(
            f"INSERT INTO matomo_log_visit VALUES ({visit}, 1, x'{visitor}', "
            f"'2026-01-31 10:30:00', x'00', INET6_ATON('192.0.2.0'), {_sql(user)}, "
            "'2026-01-31 10:00:00')"
            for visit, visitor, user in [(21, ALICE, "alice"), (22, COOKIE, None)]
        ),
        *(
            f"INSERT INTO matomo_log_link_visit_action VALUES ({number}, 1, x'{COOKIE}', 22, 0, 0, "
            f"3, '2026-01-31 10:0{number}:00', 'abcdef', NULL, NULL, {price}, {sku})"
            for number, price, sku in [(1, "19.9", "1"), (2, "NULL", "2"), (3, "NULL", "NULL")]
        ),
        *(
            f"INSERT INTO matomo_log_conversion_item VALUES (1, x'{visitor}', "
            f"'2026-01-31 10:30:00', {visit}, '{order}', {sku}, 0, 0, {price}, {pieces}, {deleted})"
            for visitor, visit, order, sku, price, pieces, deleted in [
                (ALICE, 21, "A-1001", 1, 19.9, 2, 0),
                (ALICE, 21, "A-1001", 2, 5, 1, 0),
                (COOKIE, 22, "0", 1, 19.9, 1, 0),
                (COOKIE, 22, "0", 2, 5, 1, 1),
            ]
        ),
    )
    aligned, fixed = cleaned("Matomo", mariadb_url)
    assert rows(fixed, "ip") == [
        ("cart", "cart|22", COOKIE, "SKU-1", 1, 19.9, "192.0.2.0"),
        ("purchase", "order|A-1001", "alice", "SKU-1", 2, 19.9, "192.0.2.0"),
        ("purchase", "order|A-1001", "alice", "SKU-2", 1, 5, "192.0.2.0"),
        ("view", "view|1", COOKIE, "SKU-1", 1, 19.9, "192.0.2.0"),
        ("view", "view|2", COOKIE, "SKU-2", 1, None, "192.0.2.0"),
    ]
    assert reasons(aligned) == reasons(fixed) == []


def test_segment(database_url: str, cleaned: Clean) -> None:
    common = (
        "id text, received_at timestamptz, uuid_ts timestamptz, sent_at timestamptz, "
        "original_timestamp timestamptz, timestamp timestamptz, user_id text, anonymous_id text, "
        "event text, event_text text, context_ip text, context_user_agent text"
    )
    products = json.dumps(
        [
            {"product_id": "p1", "sku": "P-1", "price": 19.90, "quantity": 2},
            {"product_id": "p2", "sku": "P-2", "price": 5, "quantity": "one"},
        ]
    )

    def values(number: str, event: str, user: str | None) -> str:
        times = ", ".join(["'2026-01-31 10:00:00Z'"] * 5)
        return (
            f"'{number}', {times}, {_sql(user)}, '507f-cookie', '{event}', '{event}', "
            "'192.0.2.1', 'Firefox'"
        )

    make(
        database_url,
        "CREATE SCHEMA shop",
        *(
            f"CREATE TABLE shop.{table} ({common}, product_id text, sku text, price numeric, "
            "quantity bigint)"
            for table in ("product_viewed", "product_added")
        ),
        *(
            f"CREATE TABLE shop.{table} ({common}, order_id text, revenue numeric, currency text, "
            "products text)"
            for table in ("checkout_started", "order_completed")
        ),
        f"INSERT INTO shop.product_viewed VALUES ({values('m1', 'product_viewed', None)}, 'p1', "
        "'P-1', 19.90, NULL)",
        f"INSERT INTO shop.product_added VALUES ({values('m2', 'product_added', 'u1')}, 'p1', "
        "'P-1', 19.90, 2)",
        f"INSERT INTO shop.checkout_started VALUES ({values('m3', 'checkout_started', 'u1')}, "
        f"'A-1', 59.7, 'EUR', '{products}')",
        f"INSERT INTO shop.order_completed VALUES ({values('m4', 'order_completed', 'u1')}, "
        f"'A-1', 59.7, 'EUR', '{products}'), ({values('m5', 'order_completed', 'u1')}, 'A-2', 5, "
        "'EUR', '[p1, p2]')",
    )
    aligned, fixed = cleaned("Segment", database_url)
    assert rows(fixed, "user_agent") == [
        ("checkout", "checkout_started|m3", "u1", "p1", 2, 19.9, "Firefox"),
        ("purchase", "order_completed|A-1", "u1", "p1", 2, 19.9, "Firefox"),
        ("cart", "product_added|m2", "u1", "p1", 2, 19.9, "Firefox"),
        ("view", "product_viewed|m1", "507f-cookie", "p1", 1, 19.9, "Firefox"),
    ]
    assert reasons(aligned) == [("not_a_value", "products")]
    assert reasons(fixed) == [("not_an_integer", "quantity")] * 2


def test_every_section_has_a_query_a_contract_and_a_test() -> None:
    sections = re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)[1:]
    assert [title.partition(":")[0] for title in BLOCKS if title.endswith("yaml")] == sections
    assert {f"test_{section.lower()}" for section in sections} < set(globals())
