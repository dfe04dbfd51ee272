//go:build unix && !linux

package proxytest

import "syscall"

func endWithUs(*syscall.SysProcAttr) {}
