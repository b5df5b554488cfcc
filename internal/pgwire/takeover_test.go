package pgwire_test

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/entrapg/entrapg/internal/pgwire"
)

// TestTakeover_BoundsMessagesBeforeSession logs in to a server that sends notices
// forever in place of the answer to pgx's own query.
func TestTakeover_BoundsMessagesBeforeSession(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan int, 1)
	go func() {
		n := 0
		defer func() { sent <- n }()
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length[:]))-4); err != nil {
			return
		}
		b, _ := (&pgproto3.AuthenticationOk{}).Encode(nil)
		b, _ = (&pgproto3.ReadyForQuery{TxStatus: 'I'}).Encode(b)
		for ; n < 1<<28 && err == nil; n += len(b) {
			_, err = conn.Write(b)
			b, _ = (&pgproto3.NoticeResponse{Severity: "NOTICE", Message: strings.Repeat("x", 60_000)}).Encode(nil)
		}
	}()
	config, err := pgconn.ParseConfig("user=x sslmode=disable target_session_attrs=read-write host=127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	config.Port = uint16(l.Addr().(*net.TCPAddr).Port)
	config.ConnectTimeout = time.Minute
	takeover := &pgwire.Takeover{Startup: func(string) *pgwire.Startup { return &pgwire.Startup{Version: pgwire.Version30} }}
	takeover.Install(config)
	_, err = pgconn.ConnectConfig(t.Context(), config)
	if err == nil {
		t.Error("logged in")
	}
	if n := <-sent; n > 1<<27 {
		t.Errorf("the server could send %d bytes", n)
	}
}
