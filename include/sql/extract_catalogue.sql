-- The catalogue as it is now: all items, also sold out ones and others that cannot be recommended.
-- An item with status 'published' and stock above 0, or without a figure of stock, can be.
SELECT product_id AS item_id, title, category, price, stock, status
FROM products
ORDER BY product_id
