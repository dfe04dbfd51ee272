package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
)

// errCredentials says that a Proxy-Authorization cannot be read.
var errCredentials = fmt.Errorf("%w: a Proxy-Authorization that is not Basic with a name and a password", BadLogin)

// parseBasic reads the value of a Proxy-Authorization (RFC 7617). The base64
// must be as one would write it, the name without control characters.
func parseBasic(value string) (name, password string, err error) {
	scheme, text, _ := strings.Cut(value, " ")
	if !isWord(scheme, "Basic") {
		return "", "", errCredentials
	}
	// Decoding skips line breaks; there are none in a field's value.
	decoded, err := base64.StdEncoding.Strict().DecodeString(strings.Trim(text, " "))
	if err != nil {
		return "", "", errCredentials // without err: it could quote the secret
	}
	name, password, found := strings.Cut(string(decoded), ":")
	if !found || !isFieldValue(name) || strings.Contains(password, "\x00") {
		return "", "", errCredentials
	}
	return name, password, nil
}

// identify finds out who asks, from the login that this request carries. It
// reports what the listener's clients have to show.
func (h *httpConn) identify(ctx context.Context, r *httpRequest) (Identity, Login, error) {
	login, shown, err := h.shown(r)
	if err != nil || shown == nil {
		return Identity{}, login, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.server.timeouts().Handshake, TimedOut)
	defer cancel()
	id, err := h.server.Authenticator.Authenticate(ctx, *shown)
	if ctx.Err() != nil {
		return Identity{}, login, context.Cause(ctx)
	}
	return id, login, err
}

// shown returns the login that a request carries, or why it is not good enough; nil:
// there is none, or it does not matter. It reports what the listener's clients have
// to show.
func (x *exchange) shown(r *httpRequest) (Login, *Credentials, error) {
	login := x.login(HTTP)
	shown := r.fields.count("Proxy-Authorization")
	switch {
	case login == LoginNone:
		return login, nil, nil
	case shown > 1:
		return login, nil, fmt.Errorf("%w: two Proxy-Authorization fields", BadRequest)
	case shown == 0 && login == LoginRequired:
		return login, nil, fmt.Errorf("%w: the client shows none", BadLogin)
	case shown == 0:
		return login, nil, nil
	}
	name, password, err := parseBasic(r.fields.get("Proxy-Authorization"))
	if err != nil {
		return login, nil, err
	}
	return login, &Credentials{
		Protocol: HTTP, Listener: x.listener.Name, Client: x.session.Client, Name: name, Password: password,
	}, nil
}
