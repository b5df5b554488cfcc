package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// measureSessions opens n sessions through the proxy, runs a query in all of them at once,
// and closes them. It returns a description of what they took. The server speaks
// PostgreSQL's protocol over TLS, but has no database, because a thousand processes of
// PostgreSQL take gigabytes.
func measureSessions(ctx context.Context, n int) (_ string, err error) {
	b := newProxyBench()
	defer b.close()
	if b.dir, err = os.MkdirTemp("", "entrapg-"); err != nil {
		return "", err
	}
	if err := b.writeCertificate(b.dir); err != nil {
		return "", err
	}
	stop, err := answerQueries(b.host, b.dir)
	if err != nil {
		return "", err
	}
	defer stop()
	b.dsns[direct] = b.directDSN()
	if err := b.startProxy(ctx); err != nil {
		return "", err
	}
	pid := b.process[proxied].Process.Pid
	memoryBefore, err := resident(pid)
	if err != nil {
		return "", err
	}
	filesBefore, err := openFiles(pid)
	if err != nil {
		return "", err
	}

	begin := time.Now()
	conns := make([]*pgconn.PgConn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close(ctx)
			}
		}
	}()
	if err := each(n, 32, func(i int) (err error) {
		conns[i], err = pgconn.Connect(ctx, b.dsns[proxied])
		return err
	}); err != nil {
		return "", err
	}
	opened := time.Since(begin)

	begin = time.Now()
	if err := each(n, n, func(i int) error {
		results, err := conns[i].Exec(ctx, "select 1").ReadAll()
		if err == nil && string(results[0].Rows[0][0]) != "1" {
			err = errors.New("the answer is not 1")
		}
		return err
	}); err != nil {
		return "", err
	}
	answered := time.Since(begin)

	memory, err := resident(pid)
	if err != nil {
		return "", err
	}
	files, err := openFiles(pid)
	if err != nil {
		return "", err
	}
	if err := each(n, n, func(i int) error { return conns[i].Close(ctx) }); err != nil {
		return "", err
	}
	filesAfter := files
	for end := time.Now().Add(time.Minute); filesAfter > filesBefore && time.Now().Before(end); sleep(ctx, 50*time.Millisecond) {
		if filesAfter, err = openFiles(pid); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d sessions: opened in %.1f s, all answer select 1 within %.1f s, %.1f KiB of memory each, "+
		"%d file descriptors before, %d during, %d after\n",
		n, opened.Seconds(), answered.Seconds(), (memory-memoryBefore)/float64(n), filesBefore, files, filesAfter), nil
}

// each calls f with 0 to n-1, in parallel. It returns one of the errors.
func each(n, parallel int, f func(int) error) error {
	var all sync.WaitGroup
	errs := make([]error, n)
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func openFiles(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}

// answerQueries listens in place of PostgreSQL, with the certificate in a directory.
func answerQueries(host, dir string) (stop func(), err error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "bench.crt"), filepath.Join(dir, "bench.key"))
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "5432"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answer(conn, config)
		}
	}()
	return func() { l.Close() }, nil
}

// answer serves one session, in which the answer to every query is 1.
func answer(conn net.Conn, config *tls.Config) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil { // the request for TLS
		return
	}
	if _, err := conn.Write([]byte("S")); err != nil {
		return
	}
	secured := tls.Server(conn, config)
	backend = pgproto3.NewBackend(secured, secured)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	backend.Send(&pgproto3.AuthenticationCleartextPassword{})
	if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	if _, err := backend.Receive(); err != nil {
		return
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}})
	for {
		backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if backend.Flush() != nil {
			return
		}
		if message, err := backend.Receive(); err != nil {
			return
		} else if _, ok := message.(*pgproto3.Query); !ok {
			return
		}
		backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("?column?"), DataTypeOID: 23}}})
		backend.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("1")}})
		backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	}
}
