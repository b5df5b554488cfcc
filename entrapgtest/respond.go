package entrapgtest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// respond returns a handler that sends the result of find as JSON. format returns the
// body of an error response.
func respond(find func(*http.Request) (any, error), format func(*http.Request, entraError) any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := find(r)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		var failure entraError
		switch {
		case err == nil:
		case errors.As(err, &failure):
			if failure.status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "1")
			}
			w.WriteHeader(failure.status)
			body = format(r, failure)
		case errors.Is(err, errTruncated):
			_, _ = io.WriteString(w, `{"token_type":"Bearer","access_token":"`+truncatedToken)
			return
		case errors.Is(err, errReset):
			reset(w)
			return
		default: // the client has disconnected, or the server is closing
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(body)
	})
}

// truncatedToken is the beginning of a token.
const truncatedToken = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsIng1dCI6ImJyb2tlbiBvZmYifQ.eyJhdWQiOiJodHRwczovL29z"

// reset closes the connection with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	socket := conn
	for {
		outer, ok := socket.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		socket = outer.NetConn()
	}
	if tcp, ok := socket.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	socket.Close() // before TLS can send a message
	conn.Close()
}

// secondsLeft returns the remaining lifetime in whole seconds, rounded down so that no
// client keeps a token after it has expired.
func secondsLeft(expires time.Time) int { return max(0, int(time.Until(expires)/time.Second)) }
