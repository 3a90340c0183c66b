-- The events that the database recorded from `start` up to, not including, `end`.
-- The query runs once for every source.slice_hours. Give recorded_at an index
-- (CREATE INDEX ON events (recorded_at)) and compare the column itself with the bounds, not a
-- function of it. Otherwise each slice reads the whole table, and the task's log warns of it.
-- Name the columns as in include/contract.yaml. Cast nothing here: the contract casts and checks.
SELECT e.line_id AS row_id, e.recorded_at, e.event_id, e.event_time, e.user_id, e.customer_ref,
       e.product_id, e.sku, e.action, e.quantity, e.price, e.user_agent, e.ip, e.app_version,
       u.email, u.role
FROM events e
LEFT JOIN users u ON u.user_id = COALESCE(e.user_id, e.customer_ref)
WHERE e.recorded_at >= :start AND e.recorded_at < :end
ORDER BY e.recorded_at, e.line_id
