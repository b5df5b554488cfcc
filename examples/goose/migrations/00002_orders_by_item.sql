-- +goose Up
create index orders_by_item on orders (item);

-- +goose Down
drop index orders_by_item;
