// Package server is the embeddable proxy server: it accepts clients, finds out
// what each one asks for, puts the question to a [Policy], and connects and
// relays what was granted.
//
// A handshake does not act: it ends in a [Request]. One function, the same for
// every protocol, then decides, connects or binds, answers, relays and records,
// so that policy, dialling, limits and accounting exist once. Refusals are
// neutral errors that carry a [Reason]; each protocol puts them into its codes.
//
// A Server without a Policy denies everything: nothing is relayed unless
// somebody said so.
package server
