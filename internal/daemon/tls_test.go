package daemon

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/config"
)

// lifetime is that of the certificates of writePair.
const lifetime = time.Hour

// writePair writes a self-signed certificate with the serial number, and its key.
func writePair(t *testing.T, files config.TLS, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now(), NotAfter: time.Now().Add(lifetime)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, files.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	writeAt(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}))
}

// writeAt writes a file and dates it by the test's clock.
func writeAt(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
}

func tlsFilesIn(dir string) config.TLS {
	return config.TLS{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// serialNow is the serial number of the certificate that the next client gets.
func serialNow(t *testing.T, c *tls.Config) int64 {
	t.Helper()
	now, err := c.GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(now.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.SerialNumber.Int64()
}

// servesPair writes the first certificate, and serves it.
func servesPair(t *testing.T, files config.TLS) (c *tls.Config, log *bytes.Buffer) {
	t.Helper()
	writePair(t, files, 1)
	log = &bytes.Buffer{}
	c, err := newTLS(files, true, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

func TestCertificateIsReadAgain(t *testing.T) {
	files := tlsFilesIn(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		c, log := servesPair(t, files)
		for _, step := range []struct {
			change func()
			serial int64
			said   string
		}{
			{func() {}, 1, ""},
			{func() { writePair(t, files, 2) }, 2, "a new certificate is in force"},
			{func() { writeAt(t, files.Key, []byte("no key")) }, 2, "stays in force"},
			{func() {}, 2, ""},
			{func() { os.Remove(files.Certificate) }, 2, "stays in force"},
			{func() { writePair(t, files, 3) }, 3, "a new certificate is in force"},
		} {
			time.Sleep(2 * lookEvery)
			log.Reset()
			step.change()
			if got := serialNow(t, c); got != step.serial {
				t.Errorf("serial %d, want %d", got, step.serial)
			}
			if got := serialNow(t, c); got != step.serial {
				t.Errorf("at once again: serial %d, want %d", got, step.serial)
			}
			if said := log.String(); !strings.Contains(said, step.said) || strings.Count(said, "\n") != min(1, len(step.said)) {
				t.Errorf("the log says %q, want %q once", said, step.said)
			}
		}
	})
}

// TestCertificateExpires: the log says once that it will, and once that it has.
func TestCertificateExpires(t *testing.T) {
	files := tlsFilesIn(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		c, log := servesPair(t, files)
		for _, step := range []struct {
			wait time.Duration
			said string
		}{{lifetime * 8 / 10, ""}, {lifetime * 15 / 100, "expires soon"}, {time.Minute, ""}, {lifetime, "has expired"}, {lifetime, ""}} {
			time.Sleep(step.wait)
			log.Reset()
			for range 2 {
				serialNow(t, c)
				time.Sleep(2 * lookEvery)
			}
			if said := log.String(); !strings.Contains(said, step.said) || strings.Count(said, "\n") != min(1, len(step.said)) {
				t.Errorf("after %v the log says %q, want %q once", step.wait, said, step.said)
			}
		}
		log.Reset()
		if _, err := newTLS(files, true, slog.New(slog.NewTextHandler(log, nil))); err != nil || !strings.Contains(log.String(), "has expired") {
			t.Errorf("a server that starts with it says %q, %v", log.String(), err)
		}
	})
}

func TestTLSFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	good := tlsFilesIn(dir)
	writePair(t, good, 1)
	empty := filepath.Join(dir, "empty.pem")
	writeAt(t, empty, nil)
	for name, files := range map[string]config.TLS{
		"no certificate":    {Certificate: empty, Key: good.Key},
		"no key":            {Certificate: good.Certificate, Key: empty},
		"a missing file":    {Certificate: filepath.Join(dir, "none"), Key: good.Key},
		"an empty CA":       {Certificate: good.Certificate, Key: good.Key, ClientCA: empty},
		"a CA that is none": {Certificate: good.Certificate, Key: good.Key, ClientCA: filepath.Join(dir, "none")},
	} {
		if _, err := newTLS(files, true, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v; want an error that names the file", name, err)
		}
	}
	if c, err := newTLS(config.TLS{}, true, nil); c != nil || err != nil {
		t.Errorf("without TLS: %v, %v", c, err)
	}
}

func TestClientCA(t *testing.T) {
	files := tlsFilesIn(t.TempDir())
	writePair(t, files, 1)
	files.ClientCA = files.Certificate
	c, err := newTLS(files, true, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now, err := c.GetConfigForClient(nil)
	if err != nil || now.ClientCAs == nil || now.ClientAuth != tls.VerifyClientCertIfGiven {
		t.Errorf("%+v, %v; want client certificates to be verified if given", now, err)
	}
}

// TestOfferedProtocols: HTTP/2 where HTTP is spoken; elsewhere nothing is chosen.
func TestOfferedProtocols(t *testing.T) {
	files := tlsFilesIn(t.TempDir())
	writePair(t, files, 1)
	for http, want := range map[bool]string{true: "h2", false: ""} {
		c, err := newTLS(files, http, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		go tls.Server(far, c).HandshakeContext(t.Context())
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1", "h2"}})
		if err := client.HandshakeContext(t.Context()); err != nil || client.ConnectionState().NegotiatedProtocol != want {
			t.Errorf("HTTP %v: %q, %v; want %q", http, client.ConnectionState().NegotiatedProtocol, err, want)
		}
	}
}
