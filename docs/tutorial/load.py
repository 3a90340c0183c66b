"""``python docs/tutorial/load.py FILE``: load the Online Retail II data into PostgreSQL, unchanged.

FILE is a .parquet, .xlsx or .csv file.
"""

import os
import sys
from pathlib import Path

import pandas as pd
import psycopg

TABLE = """
    DROP TABLE IF EXISTS invoice_lines;
    CREATE TABLE invoice_lines (
        line_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        "Invoice" text, "StockCode" text, "Description" text, "Quantity" bigint,
        "InvoiceDate" timestamp, "Price" double precision, "Customer ID" double precision,
        "Country" text)
"""
COPY = """
    COPY invoice_lines ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price",
        "Customer ID", "Country")
    FROM STDIN (FORMAT csv)
"""
READERS = {".parquet": pd.read_parquet, ".xlsx": pd.read_excel, ".csv": pd.read_csv}
# 85048 is the code of an item, not a number
AS_TEXT = {"Invoice": str, "StockCode": str}


def load(file: Path, database: str) -> int:
    """Replace the table ``invoice_lines`` by the lines of the file; returns their number."""
    lines = READERS[file.suffix](file).astype(AS_TEXT)
    with psycopg.connect(database) as connection:
        connection.execute(TABLE)
        with connection.cursor().copy(COPY) as copy:
            copy.write(lines.to_csv(index=False, header=False))
        connection.execute('CREATE INDEX ON invoice_lines ("InvoiceDate")')
        connection.execute("ANALYZE invoice_lines")
    return len(lines)


if __name__ == "__main__":
    print(f"{load(Path(sys.argv[1]), os.environ['SHOP_DATABASE']):,} lines")
