package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// Client asks a running server. Its methods block until the server has answered
// or ctx ends, and may be called from many goroutines at once.
type Client struct {
	Socket string // of the file system
}

// ErrNobody says that no server is behind the socket.
var ErrNobody = errors.New("no server answers")

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 16 << 20

// Reload has the server read its settings anew. The faults of settings are a
// [*Faults]; where there is no server the error wraps [ErrNobody].
func (c Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/reload", nil, &struct{}{})
}

// Upgrade has another process take the server's place, and returns when that
// serves. Where there is no server the error wraps [ErrNobody].
func (c Client) Upgrade(ctx context.Context) (u Upgrade, err error) {
	err = c.do(ctx, http.MethodPost, "/upgrade", nil, &u)
	return u, err
}

// Status asks how the server is. Where there is none the error wraps [ErrNobody].
func (c Client) Status(ctx context.Context) (s Status, err error) {
	err = c.do(ctx, http.MethodGet, "/status", nil, &s)
	return s, err
}

func (c Client) do(ctx context.Context, method, path string, body, into any) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	if err != nil {
		if e, ok := errors.AsType[*net.OpError](err); ok {
			err = e.Err // without the path, which comes first
		}
		return fmt.Errorf("%w: %s: %w", ErrNobody, c.Socket, err)
	}
	defer conn.Close()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("the server at %s does not answer: %w", c.Socket, err)
	}
	defer response.Body.Close()
	said, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	switch response.StatusCode {
	case http.StatusOK:
		return json.Unmarshal(said, into)
	case http.StatusNoContent:
		return nil
	}
	return refused(response.StatusCode, said)
}

// refused makes an error of an answer that is no success.
func refused(code int, body []byte) error {
	var r struct {
		refusal
		Detail string `json:"detail"` // of the API's problems
	}
	switch err := json.Unmarshal(body, &r); {
	case err != nil:
		return fmt.Errorf("the server answers %d", code)
	case r.Faults != "":
		return &Faults{Text: r.Faults}
	case r.Error == "" && r.Detail != "":
		return errors.New(r.Detail)
	}
	return errors.New(r.Error)
}
