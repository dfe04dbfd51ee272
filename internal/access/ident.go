package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/server"
)

// Ident asks a client's identification server who owns a connection (RFC
// 1413). The answer is only as trustworthy as the client's machine. The zero
// value is ready; safe for concurrent use.
type Ident struct {
	Timeout time.Duration // for the whole of it; 0: 5 s
	Port    uint16        // 0: 113
}

// Ident's own bounds.
const (
	identPort    = 113
	identTimeout = 5 * time.Second
	identAnswer  = 1000 // the longest answer (RFC 1413, section 6)
)

// Ask returns the userid that identd on the client's machine gives for the
// connection between remote (the client's end) and local (ours). The error
// wraps [server.NoIdentd] where it cannot be asked or does not answer as RFC
// 1413 says, and [server.OtherUser] where it answers with no name. It blocks,
// at most for Timeout.
func (i Ident) Ask(ctx context.Context, local, remote netip.AddrPort) (string, error) {
	timeout, port := i.Timeout, i.Port
	if timeout == 0 {
		timeout = identTimeout
	}
	if port == 0 {
		port = identPort
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// From the address that the client connected to: by it identd knows the
	// connection.
	c, err := server.Leaving{Address: local.Addr()}.Dialer().DialContext(ctx, "tcp", netip.AddrPortFrom(remote.Addr(), port).String())
	if err != nil {
		return "", fmt.Errorf("%w: %w", server.NoIdentd, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(c, "%d , %d\r\n", remote.Port(), local.Port()); err != nil {
		return "", fmt.Errorf("%w: %w", server.NoIdentd, err)
	}
	line, err := readAnswer(c)
	if err != nil {
		return "", fmt.Errorf("%w: %w", server.NoIdentd, err)
	}
	return parseIdent(line, remote.Port(), local.Port())
}

// readAnswer reads a line without its end. CR LF, a lone LF and the end of the
// stream end it.
func readAnswer(r io.Reader) ([]byte, error) {
	buf := make([]byte, 0, identAnswer+2)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if end := bytes.IndexByte(buf, '\n'); end >= 0 {
			buf = buf[:end]
		} else if err == nil && len(buf) < cap(buf) {
			continue
		} else if err != nil && err != io.EOF {
			return nil, err
		}
		buf = bytes.TrimSuffix(buf, []byte{'\r'})
		if len(buf) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		if len(buf) > identAnswer {
			return nil, errIdentLong
		}
		return buf, nil
	}
}

var (
	errIdentLong  = errors.New("identd's answer has more than 1000 bytes")
	errIdentForm  = errors.New("identd's answer is not of RFC 1413's form")
	errIdentPorts = errors.New("identd answered for other ports")
)

// parseIdent reads `6193, 23 : USERID : UNIX : stjohns` or `6193, 23 : ERROR :
// NO-USER` (RFC 1413, section 4). Spaces round the fields are dropped; of the
// userid only the one that servers put behind the colon is.
func parseIdent(line []byte, theirs, ours uint16) (string, error) {
	fields := bytes.SplitN(line, []byte{':'}, 4)
	if len(fields) < 3 {
		return "", fmt.Errorf("%w: %w", server.NoIdentd, errIdentForm)
	}
	first, second, ok := bytes.Cut(fields[0], []byte{','})
	if !ok || !isPort(first, theirs) || !isPort(second, ours) {
		return "", fmt.Errorf("%w: %w", server.NoIdentd, errIdentPorts)
	}
	switch kind := string(bytes.Trim(fields[1], " \t")); {
	case kind == "ERROR":
		return "", fmt.Errorf("%w: identd says %q", server.OtherUser, bytes.Trim(bytes.Join(fields[2:], []byte{':'}), " \t"))
	case kind != "USERID" || len(fields) != 4:
		return "", fmt.Errorf("%w: %w", server.NoIdentd, errIdentForm)
	}
	name := bytes.TrimPrefix(fields[3], []byte{' '})
	switch {
	case bytes.ContainsAny(name, "\x00\r"):
		return "", fmt.Errorf("%w: %w", server.NoIdentd, errIdentForm)
	case len(name) == 0 || string(name) == "-" || isOther(fields[2]):
		return "", fmt.Errorf("%w: identd names nobody", server.OtherUser)
	}
	return string(name), nil
}

// isOther reports whether the operating system's field says OTHER: then what
// follows is no userid of that machine but free text. A character set may follow.
func isOther(system []byte) bool {
	name, _, _ := bytes.Cut(system, []byte{','})
	return string(bytes.Trim(name, " \t")) == "OTHER"
}

func isPort(field []byte, want uint16) bool {
	n, err := strconv.ParseUint(string(bytes.Trim(field, " \t")), 10, 16)
	return err == nil && uint16(n) == want
}
