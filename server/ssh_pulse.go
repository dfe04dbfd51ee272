package server

import (
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// pulseEvery is how often a client is asked whether it is there.
const pulseEvery = 15 * time.Second

// pulse asks the other end of an SSH connection for signs of life, now and then
// and when somebody wants to know: x/crypto/ssh ends the channels of a connection
// that was cut as if all had been said.
type pulse struct {
	conn ssh.Conn
	wire *sshWire
	kick chan struct{} // somebody waits

	mu      sync.Mutex
	waiting []chan<- bool
	since   time.Time // when the question was asked that has no answer yet; zero: there is none
	dead    bool
	ended   chan struct{}
}

func (p *pulse) init(conn ssh.Conn, wire *sshWire) {
	p.conn, p.wire = conn, wire
	p.kick, p.ended = make(chan struct{}, 1), make(chan struct{})
}

// alive reports whether the other end answers to what it is asked from now on: all
// that it said before has then been taken. It blocks for as long as the answer
// takes.
func (p *pulse) alive() bool {
	answer := make(chan bool, 1)
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return false
	}
	p.waiting = append(p.waiting, answer)
	p.mu.Unlock()
	p.ask()
	return <-answer
}

// ask has the other end asked soon, and waits for nothing.
func (p *pulse) ask() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// isSlow reports whether the other end owes an answer for some time.
func (p *pulse) isSlow() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead || !p.since.IsZero() && time.Since(p.since) > 2*time.Second
}

// stop ends run.
func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		p.dead = true
		close(p.ended)
	}
	p.tell(p.waiting, false)
	p.waiting = nil
}

// run asks until stop is called or there is no answer in time, which ends the
// connection.
func (p *pulse) run() {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	defer p.stop()
	for {
		select {
		case <-tick.C:
		case <-p.kick:
		case <-p.ended:
			return
		}
		if !p.beat() {
			return
		}
	}
}

// beat asks once, for all who wait by then.
func (p *pulse) beat() bool {
	p.mu.Lock()
	waiting := p.waiting
	p.waiting, p.since = nil, time.Now()
	p.mu.Unlock()
	late := time.AfterFunc(sshAnswer, p.wire.cut)
	_, _, err := p.conn.SendRequest("keepalive@openssh.com", true, nil)
	late.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
	p.tell(waiting, err == nil)
	return err == nil
}

func (p *pulse) tell(waiting []chan<- bool, alive bool) {
	for _, w := range waiting {
		w <- alive
	}
}
