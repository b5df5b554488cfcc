-- +goose Up
create table orders (
    id       bigint generated always as identity primary key,
    item     text not null,
    quantity int not null
);

-- +goose Down
drop table orders;
