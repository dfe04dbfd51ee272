//go:build !linux

package relay

// canSleep reports whether what comes to p can be waited for without a goroutine: no.
func canSleep(port) bool { return false }

func lieDown(*session) uint64 { return 0 }

func getUp(*session, uint64) {}
