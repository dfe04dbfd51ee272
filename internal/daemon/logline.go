package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/server"
	"github.com/sallyport/sallyport/socks"
)

// This file reads what log.go writes.

// logged is what a line of the log tells of a session.
type logged struct {
	began    time.Time // when the session was decided on, to the millisecond
	ended    time.Time
	via      string
	request  server.Request
	shown    server.Identity // who the client turned out to be
	address  netip.AddrPort  // what was reached; zero: nothing
	bound    bool            // the client was told an address of ours
	rule     string
	reason   server.Reason
	complete bool // there is a request
	cut      bool // the user's name is not all there
}

// logFields are the fields of a line that are read, as they are written.
type logFields struct {
	Time, Msg, Listener, Client, Through, Protocol              string
	User, Proof, Command, Target, To, Via, Address, Bound, Rule string
	Took, Reason                                                string
}

var (
	errNotLogged = errors.New("no line of a session")
	errLogLine   = errors.New("a broken line")
)

// parseLogLine reads a line of either format. It fails with errNotLogged for what
// is in the log beside sessions, and with errLogLine for what is no line of it.
func parseLogLine(line string) (logged, error) {
	line = strings.TrimRight(line, "\r\n")
	f, err := splitLogLine(line)
	switch {
	case err != nil:
		return logged{}, err
	case f.Msg != "session":
		return logged{}, errNotLogged
	}
	return f.read()
}

// splitLogLine finds the fields.
func splitLogLine(line string) (f logFields, err error) {
	if !strings.HasPrefix(line, "{") {
		return splitTextLine(line)
	}
	if err := json.Unmarshal([]byte(line), &f); err != nil || !utf8.ValidString(line) {
		// A field of another type belongs to another message: those of a session are texts.
		if _, other := errors.AsType[*json.UnmarshalTypeError](err); other && f.Msg != "" && f.Msg != "session" {
			return f, errNotLogged
		}
		return f, errLogLine
	}
	if f.Msg == "" {
		return f, errLogLine
	}
	return f, nil
}

// splitTextLine takes key=value and key="value" apart.
func splitTextLine(line string) (f logFields, err error) {
	fields := f.byKey()
	for rest := line; rest != ""; {
		var key, value string
		if key, value, rest, err = nextField(rest); err != nil {
			return f, err
		}
		if to := fields[key]; to != nil {
			*to = value
		}
	}
	if f.Msg == "" {
		return f, errLogLine
	}
	return f, nil
}

// nextField takes the first field off.
func nextField(text string) (key, value, rest string, err error) {
	key, after, found := strings.Cut(text, "=")
	if !found {
		return "", "", "", errLogLine
	}
	if !strings.HasPrefix(after, `"`) {
		value, rest, _ = strings.Cut(after, " ")
		return key, value, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(after)
	if err != nil {
		return "", "", "", errLogLine
	}
	rest = after[len(quoted):]
	if rest != "" && rest[0] != ' ' {
		return "", "", "", errLogLine
	}
	value, err = strconv.Unquote(quoted)
	return key, value, strings.TrimPrefix(rest, " "), err
}

// byKey says where the value of a key belongs.
func (f *logFields) byKey() map[string]*string {
	return map[string]*string{
		"time": &f.Time, "msg": &f.Msg, "listener": &f.Listener, "client": &f.Client, "through": &f.Through,
		"protocol": &f.Protocol, "user": &f.User, "proof": &f.Proof, "command": &f.Command, "target": &f.Target, "to": &f.To, "via": &f.Via,
		"address": &f.Address, "bound": &f.Bound, "rule": &f.Rule, "took": &f.Took, "reason": &f.Reason,
	}
}

// read takes the values for what they are.
func (f *logFields) read() (logged, error) {
	ended, err := time.Parse(time.RFC3339Nano, f.Time)
	took, err2 := time.ParseDuration(f.Took)
	client, err3 := netip.ParseAddrPort(f.Client)
	if errors.Join(err, err2, err3) != nil || f.Reason == "" || f.Listener == "" {
		return logged{}, errLogLine
	}
	s := logged{began: ended.Add(-took), ended: ended, via: f.Via, bound: f.Bound != "", rule: f.Rule, reason: server.Reason(f.Reason)}
	s.request = server.Request{Protocol: server.Protocol(f.Protocol), Client: client, Listener: f.Listener, Relayed: f.Through != ""}
	if f.Address != "" {
		if s.address, err = netip.ParseAddrPort(f.Address); err != nil {
			return logged{}, errLogLine
		}
	}
	command, known := commands[f.Command]
	if f.Command == "" || !known {
		return s, nil // nothing that rules decide on
	}
	s.complete, s.request.Command = true, command
	target := f.Target
	if command == socks.Associate {
		target = f.To // the other is where the client sends from
	}
	if target != "" || command != socks.Associate {
		if s.request.Target, err = socks.ParseAddr(target); err != nil {
			return logged{}, errLogLine
		}
	}
	return s, s.readUser(f)
}

func (s *logged) readUser(f *logFields) error {
	name, whole := access.Unescape(f.User)
	proof := server.Proof(f.Proof)
	switch proof {
	case "none":
		proof = server.NoProof
	case server.Claimed, server.Ident, server.Password, server.Certificate, server.Key:
	default:
		return errLogLine
	}
	s.cut = !whole
	if name != "" && proof != server.NoProof {
		s.shown = server.Identity{Name: name, Proof: proof}
	}
	s.request.Identity = shown(s.request.Protocol, s.shown.Name, s.shown.Proof)
	return nil
}

// was is how the session fared: it was allowed by a rule, or refused; known is
// false where that was never decided, or had to do with more than rules.
func (s *logged) was() (v verdict, known bool) {
	udp := s.request.Command == socks.Associate
	if !s.complete || udp && s.bound && s.request.Target == (socks.Addr{}) {
		return v, false // of an association without a datagram nothing was decided for good
	}
	open := s.address.IsValid() || s.bound && !udp
	switch {
	case open:
	case s.reason == server.Revoked:
		return v, false
	case isRefusal(s.reason), s.reason == server.BadRequest && s.rule != "": // no host's address
		return verdict{Reason: string(s.reason), Rule: s.rule}, true
	case s.reason == server.Unsupported && s.rule == "": // else a command, or a method of HTTP
		return verdict{Reason: string(s.reason)}, isSOCKS4(s.request.Protocol)
	}
	return verdict{Allowed: true, Rule: s.rule, Via: s.via, CutShort: s.reason == server.Schedule}, s.rule != ""
}

// isRefusal reports whether a session was refused by rules, or by what they rest on.
func isRefusal(r server.Reason) bool {
	switch r {
	case server.Denied, server.Schedule, server.NoIdentd, server.OtherUser, server.BadLogin, server.NoName:
		return true
	}
	return false
}

// verdict is what rules say of a session.
type verdict struct {
	Allowed  bool   `json:"allowed"`
	Reason   string `json:"reason,omitempty"` // why it is not
	Rule     string `json:"rule,omitempty"`
	Via      string `json:"via,omitempty"`       // the upstream
	CutShort bool   `json:"cut_short,omitempty"` // the hours of its rule end it
}

// String says it for a person.
func (v verdict) String() string {
	switch {
	case v.Allowed:
		text := fmt.Sprintf("allowed by \"%s\"", access.Escape(v.Rule))
		if v.Via != "" {
			text += " via " + access.Escape(v.Via)
		}
		if v.CutShort {
			text += " until its hours end"
		}
		return text
	case v.Rule != "":
		return fmt.Sprintf("refused (%s, rule \"%s\")", access.Escape(v.Reason), access.Escape(v.Rule))
	}
	return fmt.Sprintf("refused (%s)", access.Escape(v.Reason))
}
