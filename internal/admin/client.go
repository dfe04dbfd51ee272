package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
)

// Client asks a running server by its API, on its unix socket. The methods block until
// the server has answered or ctx ends, and may be called from many goroutines at once.
// Where there is no server their errors wrap [ErrNobody].
type Client struct {
	Socket string // of the file system
}

// ErrNobody says that no server is behind the socket.
var ErrNobody = errors.New("no server answers")

const (
	// apiPath is where the operations of the API are.
	apiPath = "/api/v1/"
	// maxAnswer is how much of an answer is read, in bytes.
	maxAnswer = 16 << 20
)

// do asks for an operation. A body of nil is none; into may be nil where no answer is
// expected.
func (c Client) do(ctx context.Context, method, operation string, body, into any) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // which is no word about the server
	}
	if err != nil {
		return c.unreached(err)
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
	request, err := http.NewRequestWithContext(ctx, method, "http://admin"+apiPath+operation, bytes.NewReader(text))
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
	switch {
	case err != nil:
		return err
	case response.StatusCode == http.StatusNoContent:
		return nil
	case response.StatusCode == http.StatusOK:
		if err := json.Unmarshal(said, into); err != nil {
			return fmt.Errorf("the server at %s, which may be of another version, gives an answer that cannot be read: %w", c.Socket, err)
		}
		return nil
	}
	return refused(response.StatusCode, said)
}

// problem is an answer that is no success (RFC 9457).
type problem struct {
	Code   int    `json:"-"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

// Error returns what the server says of it.
func (p *problem) Error() string {
	var all []string
	for _, e := range p.Errors {
		all = append(all, e.Location+": "+e.Message)
	}
	if len(all) == 0 {
		return p.Detail
	}
	return p.Detail + ": " + strings.Join(all, "; ")
}

// unreached says why nobody was asked.
func (c Client) unreached(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err // without the path, which comes first
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the socket %s is for root and for the user that the server runs as: %w", c.Socket, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrNobody, c.Socket, err)
}

// refused makes an error of an answer that is no success.
func refused(code int, body []byte) error {
	p := &problem{Code: code}
	if json.Unmarshal(body, p) != nil || p.Detail == "" {
		return fmt.Errorf("the server answers %d", code)
	}
	return p
}
