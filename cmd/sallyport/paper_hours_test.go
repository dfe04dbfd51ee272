//go:build linux

package main_test

// Hours, on the clock of the machine: the program is put into a zone of its own,
// in which noon is a few seconds away.

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// paperZone writes a time zone in which it is noon at that time.
func paperZone(t *testing.T, noon time.Time) string {
	t.Helper()
	seconds := noon.UTC().Sub(noon.UTC().Truncate(24 * time.Hour)).Seconds()
	head := append([]byte("TZif"), make([]byte, 16+4*4)...) // one type, and not one change
	head = binary.BigEndian.AppendUint32(head, 1)
	head = binary.BigEndian.AppendUint32(head, 2) // bytes of its name
	zone := binary.BigEndian.AppendUint32(head, uint32(int32(12*60*60-int(seconds))))
	path := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(path, append(zone, 0, 0, 'T', 0), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// paperHours has a rule with hours, and a listener with hours.
const paperHours = `
log: {format: json}
listeners:
  - {name: all day, listen: "127.0.0.1:0"}
  - {name: mornings, listen: "127.0.0.1:0", during: morning}
schedules:
  morning: {hours: 00:00-12:00}
rules:
  - {allow: in the morning, listeners: all day, from: loopback, to: any, during: morning}
  - {allow: any time, listeners: mornings, from: loopback, to: any}
`

// TestPaperHours: what was let in by a rule or a listener with hours is ended when
// they are over, and then nobody is let in any more, whatever protocol he speaks.
func TestPaperHours(t *testing.T) {
	t.Parallel()
	paperSlow(t)
	if _, err := paperProgram(); err != nil { // which is built before the clock runs
		t.Fatal(err)
	}
	noon := time.Now().Truncate(time.Second).Add(8 * time.Second)
	s := startPaper(t, paperSetup{settings: paperHours, listen: "-", zone: paperZone(t, noon)})
	echo := paperEcho(t, nil, "127.0.0.1:0")
	var open []*paperConn
	for _, at := range s.addrs {
		socks4, socks5, http, udp := s.net.dial(t, "", at), s.net.dial(t, "", at), s.net.dial(t, "", at), s.net.dial(t, "", at)
		socks4.sends(paperAsk(paperCONNECT, echo, "bob"))
		socks4.granted()
		socks5.sends(paper5Open(paper5Ask(paperCONNECT, echo)))
		socks5.hears(paper5ChoseNone)
		socks5.granted5()
		http.says(fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", echo, echo))
		http.hears("HTTP/1.1 200 ")
		udp.sends(paper5Open(paper5Ask(3, netip.MustParseAddrPort("0.0.0.0:0"))))
		udp.hears(paper5ChoseNone)
		udp.granted5()
		socks4.echoes()
		open = append(open, socks4, socks5, http, udp)
	}
	for i, c := range open {
		_, _ = io.Copy(io.Discard, c) // a reset, but of an association
		if now := time.Now(); now.Before(noon) {
			t.Errorf("the session %d has ended %v too early", i, noon.Sub(now))
		} else if i == 0 {
			t.Logf("it has ended %v after its hours", now.Sub(noon))
		}
		s.ended(t, c, "schedule")
	}
	for _, at := range s.addrs {
		paperAfterHours(t, s, at, echo)
	}
}

// paperAfterHours checks that nobody is let in, and is told why.
func paperAfterHours(t *testing.T, s *paperServer, at, target netip.AddrPort) {
	t.Helper()
	for name, request := range map[string][]byte{
		"4":  paperAsk(paperCONNECT, target, "bob"),
		"4a": paperAskName(paperCONNECT, "localhost", target.Port(), "bob"),
	} {
		c := s.net.dial(t, "", at)
		c.sends(request)
		c.refused(paperRejected)
		if got := s.session(t, c).Reason; got != "schedule" {
			t.Errorf("SOCKS %s: the log's reason is %q", name, got)
		}
	}
	for _, request := range [][]byte{
		paper5Ask(paperCONNECT, target), paper5AskName(paperCONNECT, "localhost", target.Port()),
		paper5Ask(3, netip.MustParseAddrPort("0.0.0.0:0")),
	} {
		c := s.net.dial(t, "", at)
		c.sends(paper5Open(request))
		c.hears(paper5ChoseNone)
		c.refused5(2)
		s.ended(t, c, "schedule")
	}
	for _, request := range []string{"CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", "GET http://%[1]s/ HTTP/1.1\r\nHost: %[1]s\r\n\r\n"} {
		c := s.net.dial(t, "", at)
		c.says(fmt.Sprintf(request, target))
		r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodGet})
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusForbidden || r.Header.Get("Sallyport-Reason") != "schedule" || !strings.Contains(string(page), "at this hour") {
			t.Errorf("HTTP %d, %v, %v: %s", r.StatusCode, r.Header, err, page)
		}
		s.ended(t, c, "schedule")
	}
}
