// A program that does nothing: what its imports cost at the start is measured.
package main

import (
	_ "github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	_ "github.com/jackc/pgx/v5/stdlib"

	_ "github.com/entrapg/entrapg"
)

func main() {}
