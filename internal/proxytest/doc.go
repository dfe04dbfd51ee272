// Package proxytest is the test bench of the proxy: targets, raw clients, a
// network in memory for tests on a fake clock, and [Inbound], the suite that
// every inbound protocol must pass.
//
// It knows nothing of the server: what is under test is handed to it as
// functions and standard interfaces.
package proxytest
