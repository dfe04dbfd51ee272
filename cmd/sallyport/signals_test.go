//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"
)

// TestSignalsThatEnd: the first ends serving, the second the patience; that the system has no
// signals to ask for anything else, as Windows, changes nothing.
func TestSignalsThatEnd(t *testing.T) {
	heard := 0
	for name, requests := range map[string]map[os.Signal]func(){
		"no others": nil,
		"one other": {syscall.SIGUSR1: func() { heard++ }},
	} {
		stop, hurry, release := onSignals(t.Context(), requests)
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
	})
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
