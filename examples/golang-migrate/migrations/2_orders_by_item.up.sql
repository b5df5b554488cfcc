create index orders_by_item on orders (item);
