-- The catalogue as it stands: what may be recommended (status published, stock above 0) and what people see of it.
SELECT product_id AS item_id, title, category, price, stock, status
FROM products
ORDER BY product_id
