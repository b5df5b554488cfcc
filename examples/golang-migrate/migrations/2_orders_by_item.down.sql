drop index orders_by_item;
