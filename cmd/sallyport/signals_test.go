//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/proxytest"
)

// TestSignalsThatEnd: the first ends serving, the second the patience; that the system has no
// signals to ask for anything else, as Windows, changes nothing.
func TestSignalsThatEnd(t *testing.T) {
	heard := 0
	for name, requests := range map[string]map[os.Signal]func(){
		"no others": nil,
		"one other": {syscall.SIGUSR1: func() { heard++ }},
	} {
		stop, hurry, release := onSignals(t.Context(), requests, nil)
		if requests != nil {
			signalUs(t, syscall.SIGUSR1)
		}
		signalUs(t, syscall.SIGTERM)
		<-stop.Done()
		if hurry.Err() != nil {
			t.Errorf("%s: the first ends the patience, too", name)
		}
		signalUs(t, os.Interrupt)
		<-hurry.Done()
		release()
	}
	if heard != 1 {
		t.Errorf("the other signal was heard %d times", heard)
	}
}

// TestSignalsDoNotWaitForEachOther: while one takes its time, the others do what they are
// for, and one that comes again is not lost.
func TestSignalsDoNotWaitForEachOther(t *testing.T) {
	began, free, heard := make(chan struct{}, 9), make(chan struct{}), make(chan struct{}, 9)
	_, _, release := onSignals(t.Context(), map[os.Signal]func(){
		syscall.SIGUSR2: func() { began <- struct{}{}; <-free },
		syscall.SIGHUP:  func() { heard <- struct{}{} },
	}, nil)
	signalUs(t, syscall.SIGUSR2)
	<-began
	for range 3 {
		signalUs(t, syscall.SIGUSR2)
		signalUs(t, syscall.SIGHUP)
		<-heard
	}
	close(free)
	<-began
	release()
}

// TestSignalsThatAreEarly: what comes before there is a server is done when there is one.
func TestSignalsThatAreEarly(t *testing.T) {
	early := make(chan os.Signal, 8)
	signal.Notify(early, held()...)
	for i, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGHUP} {
		signalUs(t, s)
		proxytest.Eventually(t, "it has come", func() bool { return len(early) == i+1 })
	}
	heard := make(chan string, 4)
	_, _, release := onSignals(t.Context(), map[os.Signal]func(){
		syscall.SIGHUP:  func() { heard <- "HUP" },
		syscall.SIGUSR1: func() { heard <- "USR1" },
		syscall.SIGUSR2: func() { heard <- "USR2" },
	}, early)
	defer release()
	for got := map[string]bool{}; !got["HUP"] || !got["USR2"]; {
		got[<-heard] = true
	}
	if len(early) > 0 {
		t.Errorf("%d are left", len(early))
	}
}

func signalUs(t *testing.T, s os.Signal) {
	t.Helper()
	us, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = us.Signal(s)
	}
	if err != nil {
		t.Fatal(err)
	}
}
