-- What may be recommended. The shop has no product table: an item is a stock code that was sold, with
-- the title and the price of its last sale. It has no stock figures either: an item that was sold in
-- the last 60 days of the data counts as in stock.
WITH sales AS (
    SELECT upper(trim("StockCode")) AS item_id, trim("Description") AS title, "Price" AS price,
           "InvoiceDate" AS sold_at, line_id
    FROM invoice_lines
    WHERE "Invoice" ~ '^[0-9]' AND "Quantity" > 0 AND "Price" > 0 AND "Description" IS NOT NULL
)
SELECT DISTINCT ON (item_id)
       item_id, title, NULL AS category, price,
       CASE WHEN sold_at > (SELECT max("InvoiceDate") FROM invoice_lines) - INTERVAL '60 days'
            THEN 1 ELSE 0 END AS stock,
       'published' AS status
FROM sales
ORDER BY item_id, sold_at DESC, line_id DESC
