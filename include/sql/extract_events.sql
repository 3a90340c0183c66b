-- The events that the database recorded from `start` up to, not including, `end`.
-- It runs once for every source.slice_hours: give recorded_at an index (CREATE INDEX ON events (recorded_at)), or each slice
-- reads the whole table, of which the task's log warns. Compare the column itself with the bounds, not a function of it.
-- Name the columns as include/contract.yaml knows them; it casts and checks, so cast nothing here.
SELECT e.line_id AS row_id, e.recorded_at, e.event_id, e.event_time, e.user_id, e.customer_ref, e.product_id, e.sku,
       e.action, e.quantity, e.price, e.user_agent, e.ip, e.app_version, u.email, u.role
FROM events e
LEFT JOIN users u ON u.user_id = COALESCE(e.user_id, e.customer_ref)
WHERE e.recorded_at >= :start AND e.recorded_at < :end
ORDER BY e.recorded_at, e.line_id
