package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// sshTries is how often a client may fail to sign in on one connection.
const sshTries = 6

// sshRekey is after how many bytes keys are exchanged anew (RFC 4253, section 9).
const sshRekey = 1 << 30

// signIn exchanges keys and lets the client show who it is. Until that is over the
// connection counts as a handshake.
func (c *sshConn) signIn(handshakes context.Context) (<-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	source := c.session.Client.Addr()
	ctx, leave := c.server.state.handshakes.hold(handshakes, source)
	defer leave()
	ctx, leaveLogin := c.server.state.logins.hold(ctx, source)
	defer leaveLogin()
	ctx, slow := context.WithCancelCause(ctx)
	defer slow(nil)
	until := c.session.Started.Add(c.server.timeouts().Handshake)
	timer := time.AfterFunc(time.Until(until), func() { slow(HandshakeSlow) })
	defer timer.Stop()
	stop := context.AfterFunc(ctx, c.wire.cut)

	l := &sshLogin{conn: c, login: c.login(SSH), shown: func() { timer.Reset(sshLoginTime) }}
	conn, channels, requests, err := ssh.NewServerConn(c.wire, l.config(ctx))
	inTime := stop()
	switch {
	case !inTime && err == nil:
		_ = conn.Wait() // says only that it was cut
		return nil, nil, context.Cause(ctx)
	case !inTime:
		return nil, nil, context.Cause(ctx)
	case err != nil:
		return nil, nil, l.reason(err)
	}
	id, _ := conn.Permissions.ExtraData[identityKey{}].(Identity)
	c.ssh, c.identity, c.session.Identity = conn, id, id
	c.pulse.init(conn, c.wire)
	return channels, requests, nil
}

// sshLogin is a client that signs in.
type sshLogin struct {
	conn  *sshConn
	login Login
	shown func() // is called when the client begins to say who it is
	tried error  // how the last try failed
}

// identityKey is where what was shown is kept, in ssh.Permissions.
type identityKey struct{}

func (l *sshLogin) config(ctx context.Context) *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		Config:        ssh.Config{Ciphers: sshCiphers(l.conn.wire.greeting), KeyExchanges: sshKeyExchanges(), RekeyThreshold: sshRekey},
		MaxAuthTries:  sshTries,
		ServerVersion: sshVersion,
		BannerCallback: func(ssh.ConnMetadata) string {
			l.shown()
			return ""
		},
	}
	exchanges := &rekeys{conn: l.conn, left: rekeyBurst, at: time.Now()}
	c.AddHostKey(exchanges.counted(l.conn.listener.HostKey))
	if l.login == LoginNone || l.conn.certificate.Name != "" {
		c.NoClientAuth = true
		c.NoClientAuthCallback = func(ssh.ConnMetadata) (*ssh.Permissions, error) { return proven(l.conn.certificate), nil }
		return c
	}
	c.PasswordCallback = func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		return l.try(ctx, Credentials{Name: m.User(), Password: string(password)})
	}
	c.PublicKeyCallback = func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		return l.try(ctx, Credentials{Name: m.User(), Key: key.Marshal()})
	}
	return c
}

func proven(id Identity) *ssh.Permissions {
	return &ssh.Permissions{ExtraData: map[any]any{identityKey{}: id}}
}

// try checks what the client shows. Of a key it is asked before there is a
// signature, and what is answered counts only with one.
func (l *sshLogin) try(ctx context.Context, shown Credentials) (*ssh.Permissions, error) {
	x := l.conn.exchange
	shown.Protocol, shown.Listener, shown.Client = SSH, x.listener.Name, x.session.Client
	id, err := x.server.Authenticator.Authenticate(ctx, shown)
	if err != nil {
		l.tried = err
		return nil, err
	}
	return proven(id), nil
}

// reason says why nobody has signed in.
func (l *sshLogin) reason(err error) error {
	var auth *ssh.ServerAuthError
	switch {
	case l.tried != nil:
		return l.tried
	case errors.As(err, &auth) && l.login != LoginNone:
		return fmt.Errorf("%w: the client shows neither a password nor a key", BadLogin)
	}
	if reason := handshakeEnd(err); ReasonOf(reason) != Failed {
		return reason
	}
	return fmt.Errorf("%w: %w", BadRequest, err)
}

// sshCiphers are those offered to a client, of whose greeting this much has come.
// The client's order counts, and the one of many is of long ago: where the processor
// has AES, and the client is known to have AES-GCM, it is offered nothing else, for
// all others would make both ends work two to three times as much.
func sshCiphers(greeting string) []string {
	gcm := []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM}
	hardware := cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
	if hardware && hasGCM(greeting) {
		return gcm
	}
	return append(gcm, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR)
}

// hasGCM reports whether a client is known to have AES-GCM: OpenSSH since 6.2 of the
// year 2013, and who uses the same library as we.
func hasGCM(greeting string) bool {
	release, isOpenSSH := strings.CutPrefix(greeting, "SSH-2.0-OpenSSH_")
	major, _, _ := strings.Cut(release, ".")
	number, err := strconv.Atoi(major)
	return isOpenSSH && err == nil && number >= 7 || isSallyport(greeting) || strings.HasPrefix(greeting, "SSH-2.0-Go")
}

// sshKeyExchanges leaves out SHA-1, and groups that cost more than they give.
func sshKeyExchanges() []string {
	return []string{
		ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519,
		ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521, ssh.KeyExchangeDH14SHA256,
	}
}
