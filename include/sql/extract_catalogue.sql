-- The catalogue as it is now. An item with status 'published' and stock above 0 can be recommended.
SELECT product_id AS item_id, title, category, price, stock, status
FROM products
ORDER BY product_id
