-- name: PlaceOrder :one
insert into orders (item, quantity) values ($1, $2) returning *;

-- name: CountOrders :one
select count(*) from orders where item = $1;
