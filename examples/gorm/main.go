// GORM: models and migrations over a *sql.DB that entrapg opened.
//
// Pass it to GORM's dialect as Conn. Set the pool's limits on that *sql.DB and
// close it, because GORM has no Close. Leave DriverName empty: with "entrapg",
// GORM caches plans that the next migration makes invalid.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/entrapg/entrapg"
)

type Order struct {
	ID       int64
	Item     string
	Quantity int
}

func open(dsn string) (*gorm.DB, *sql.DB, error) {
	pool := sql.OpenDB(entrapg.NewConnector(dsn))
	pool.SetMaxOpenConns(10)
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}))
	return db, pool, err
}

// place places an order and returns how many there are for the same item.
func place(ctx context.Context, db *gorm.DB, item string, quantity int) (count int64, err error) {
	db = db.WithContext(ctx)
	if err := db.Create(&Order{Item: item, Quantity: quantity}).Error; err != nil {
		return 0, err
	}
	err = db.Model(&Order{}).Where(&Order{Item: item}).Count(&count).Error
	return count, err
}

func main() {
	db, pool, err := open(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := db.AutoMigrate(&Order{}); err != nil {
		log.Fatal(err)
	}
	count, err := place(context.Background(), db, "tea", 2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(count, "orders for tea")
}
