package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestQuotasOutliveKills: SIGKILL under load costs what was used since the last write,
// and nothing is counted twice: the quota ends the load, over all lives of the server.
func TestQuotasOutliveKills(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes more than 2 s")
	}
	const quota, kills = 40_000_000, 3
	settings := filepath.Join(t.TempDir(), "sallyport.yaml")
	const text = "listeners: {listen: '127.0.0.1:0', protocols: socks4}\nrules: {allow: all, to: any, limits: [much, slow]}\n" +
		"limits: {much: {quota: 40 MB, every: 366d, zone: UTC, per: server}, slow: {rate: 200 Mbit/s, per: server}}\n" +
		"admin: off\nledger: {store: 'sqlite:ledger.db', flush: 100ms}\n"
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	target := proxytest.Echo(t, "127.0.0.1")
	var moved, known int64
	for range kills {
		server, address := startKillable(t, settings)
		load := startLoad(t, address, target.Port())
		for range 2 {
			before := known
			proxytest.Eventually(t, "it is written", func() bool {
				known = usedOf(t, settings)
				return known > before
			})
		}
		if err := server.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = server.Wait() // it was killed
		load.end()
		moved += load.moved.Load()
		if used := usedOf(t, settings); used < known || used > quota {
			t.Errorf("used were %d bytes of %d, and after the kill %d", known, int64(quota), used)
		}
	}
	server, address := startKillable(t, settings)
	load := startLoad(t, address, target.Port())
	load.all.Wait() // the quota ends it
	load.end()
	moved += load.moved.Load()
	proxytest.Eventually(t, "all of it is used", func() bool { return usedOf(t, settings) > quota })
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	// Of each session a block each way may not have come back.
	if used := usedOf(t, settings); used > moved+(kills+1)*4*2*16<<10 {
		t.Errorf("%d bytes are used, and no more than %d were moved", used, moved)
	}
}

// usedOf asks the command how much of the quota is used.
func usedOf(t *testing.T, settings string) int64 {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run([]string{"usage", "quotas", "--config", settings, "--json"}, nil, &out, &errs); code != 0 {
		t.Fatalf("%d: %s", code, errs.String())
	}
	var all daemon.QuotaReport
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Quotas) == 0 {
		return 0
	}
	return all.Quotas[0].Used
}
