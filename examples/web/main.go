// Web: a service with health checks and a graceful shutdown.
//
// The readiness check pings the database, so that the load balancer removes an
// instance that cannot reach it. The liveness check does not, because a restart
// would not help. On shutdown, the service finishes the requests in progress and
// then closes the pool.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/entrapg/entrapg"
)

func routes(db *sql.DB) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		if err := db.PingContext(ctx); err != nil {
			log.Print(err) // contains no token
			http.Error(w, "no database", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /time", func(w http.ResponseWriter, r *http.Request) {
		var now time.Time
		if err := db.QueryRowContext(r.Context(), "select now()").Scan(&now); err != nil {
			log.Print(err)
			http.Error(w, "sorry", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, now)
	})
	return mux
}

// serve serves until ctx ends, and then finishes the requests in progress.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		stopped <- server.Shutdown(limit)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	db := sql.OpenDB(entrapg.NewConnector(os.Getenv("DATABASE_URL")))
	defer db.Close()
	listener, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, listener, routes(db)); err != nil {
		log.Print(err)
	}
}
