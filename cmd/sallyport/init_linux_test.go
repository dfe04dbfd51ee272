package main

import (
	"strings"
	"testing"
)

// TestInitOnAFullDisk: what could not be written is not there, with or without one before.
func TestInitOnAFullDisk(t *testing.T) {
	said := alone(t, `
mkdir /run/full
mount -t tmpfs -o size=16k none /run/full
cd /run/full
echo before >s.yaml
cat /dev/zero >fill 2>/dev/null || true
for try in 1 2; do
	fails sh -c 'yes "" | sallyport init --output new.yaml'
	fails sh -c 'yes "" | sallyport init --force --output s.yaml'
done
ls /run/full
cat s.yaml
rm fill
yes '' | sallyport init --output new.yaml
`)
	if strings.Count(said, "no space left on device") != 4 || !strings.Contains(said, "fill\ns.yaml\nbefore\n") || !strings.Contains(said, "new.yaml is written") {
		t.Errorf("got %s", said)
	}
}
