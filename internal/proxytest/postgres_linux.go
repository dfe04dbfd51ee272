package proxytest

import "syscall"

// endWithUs has the process end when that of the test does, however it does.
func endWithUs(how *syscall.SysProcAttr) { how.Pdeathsig = syscall.SIGQUIT }
