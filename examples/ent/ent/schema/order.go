// Package schema describes the shop's entities.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
)

// An Order is an amount of an item.
type Order struct{ ent.Schema }

// Fields of an Order besides its ID.
func (Order) Fields() []ent.Field {
	return []ent.Field{field.String("item"), field.Int("quantity").Positive()}
}
