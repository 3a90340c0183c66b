-- The invoice lines recorded from `start` up to, not including, `end`. "InvoiceDate" is the shop's
-- local time, the bounds are UTC. The query converts the bounds to the shop's time, and not the column
-- to UTC, because only so can the database use the index on "InvoiceDate".
SELECT line_id                                        AS row_id,
       "InvoiceDate" AT TIME ZONE 'Europe/London'     AS recorded_at,
       "InvoiceDate" AT TIME ZONE 'Europe/London'     AS event_time,
       "Invoice"                                      AS event_id,
       CASE WHEN "Invoice" LIKE 'C%' THEN 'cancellation'
            WHEN "Invoice" LIKE 'A%' THEN 'adjustment'
            ELSE 'purchase' END                       AS event_type,
       "Customer ID"                                  AS user_id,
       "StockCode"                                    AS item_id,
       "Quantity"                                     AS quantity,
       "Price"                                        AS value,
       "Country"                                      AS country
FROM invoice_lines
WHERE "InvoiceDate" >= CAST(:start AS timestamptz) AT TIME ZONE 'Europe/London'
  AND "InvoiceDate" < CAST(:end AS timestamptz) AT TIME ZONE 'Europe/London'
ORDER BY "InvoiceDate", line_id
