package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/regular"
)

// newTLS returns the terms on which a listener speaks TLS, nil where it does
// not. The certificate files are read again when they change: a new certificate
// holds for the next client, and one that cannot be read leaves the old in
// force and is logged, once. http says that HTTP is spoken there, in either of
// its versions.
func newTLS(t config.TLS, http bool, log *slog.Logger) (*tls.Config, error) {
	if t.Certificate == "" {
		return nil, nil
	}
	f := &tlsFiles{files: t, log: log}
	if http {
		f.offered = []string{"h2", "http/1.1"}
	}
	stamp := f.stampNow()
	current, err := f.read()
	if err != nil {
		return nil, err
	}
	f.current, f.stamp, f.looked = current, stamp, time.Now()
	f.warn(f.looked)
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.latest(), nil },
	}, nil
}

// tlsFiles are a listener's certificate files and what they said when last read.
type tlsFiles struct {
	files   config.TLS
	offered []string // by ALPN (RFC 7301)
	log     *slog.Logger

	mu      sync.Mutex
	current *tls.Config
	stamp   string    // of the files when current was read
	looked  time.Time // when the stamp was last compared
	warned  age       // what the log has of the age of current
}

// lookEvery is how often the files may be looked at.
const lookEvery = time.Second

func (f *tlsFiles) latest() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < lookEvery {
		return f.current
	}
	f.looked = time.Now()
	defer func() { f.warn(f.looked) }()
	stamp := f.stampNow()
	if stamp == f.stamp {
		return f.current
	}
	f.stamp = stamp
	fresh, err := f.read()
	if err != nil {
		f.log.Error("the certificate files have changed and cannot be used; the old certificate stays in force", "error", err)
		return f.current
	}
	f.log.Info("a new certificate is in force", "file", f.files.Certificate)
	f.current, f.warned = fresh, good
	return f.current
}

// age is how far the time of a certificate has gone by.
type age int

const (
	good age = iota
	nearEnd
	over
)

// lastDays is the end of a certificate's time, of which the log warns; of one that is for a
// shorter time than ten of them, the last tenth.
const lastDays = 7 * 24 * time.Hour

func ageOf(c *x509.Certificate, now time.Time) age {
	switch left := c.NotAfter.Sub(now); {
	case left < 0:
		return over
	case left < min(lastDays, c.NotAfter.Sub(c.NotBefore)/10):
		return nearEnd
	}
	return good
}

// warn says once that the certificate is about to expire, and once that it has. Callers
// hold mu, or nobody else has f.
func (f *tlsFiles) warn(now time.Time) {
	leaf := f.current.Certificates[0].Leaf
	is := ageOf(leaf, now)
	if is <= f.warned {
		return
	}
	f.warned = is
	const remedy = "put another one in its place, which is read by itself"
	if is == over {
		f.log.Error("the certificate has expired, and clients that look turn away: "+remedy, "file", f.files.Certificate, "expired", leaf.NotAfter)
	} else {
		f.log.Warn("the certificate expires soon: "+remedy, "file", f.files.Certificate, "expires", leaf.NotAfter)
	}
}

// stampNow tells one state of the files from another.
func (f *tlsFiles) stampNow() string {
	var stamp string
	for _, name := range []string{f.files.Certificate, f.files.Key, f.files.ClientCA} {
		if info, err := os.Stat(name); err == nil {
			stamp += fmt.Sprintf("%d %d;", info.Size(), info.ModTime().UnixNano())
		} else {
			stamp += "-;"
		}
	}
	return stamp
}

func (f *tlsFiles) read() (*tls.Config, error) {
	pair, err := readPair(f.files)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   f.offered,
	}
	if f.files.ClientCA == "" {
		return c, nil
	}
	if c.ClientCAs, err = readAuthorities(f.files.ClientCA); err != nil {
		return nil, fmt.Errorf("client_ca %s: %w", f.files.ClientCA, err)
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	return c, nil
}

// maxPEM is the most bytes of a file of certificates or of a key.
const maxPEM = 4 << 20

// readPair reads a certificate and its key.
func readPair(t config.TLS) (tls.Certificate, error) {
	certificate, _, err := regular.Read(t.Certificate, maxPEM, nil)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate %s: %w", t.Certificate, err)
	}
	key, _, err := regular.Read(t.Key, maxPEM, nil)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS key %s: %w", t.Key, err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate %s: %w", t.Certificate, err)
	}
	return pair, nil
}

// readAuthorities reads the certificates of who signs others.
func readAuthorities(file string) (*x509.CertPool, error) {
	text, _, err := regular.Read(file, maxPEM, nil)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("there is no certificate in the file")
	}
	return pool, nil
}
