//go:build !linux

package pgtest

import "syscall"

// dieWithParent does nothing: only Linux can do it. A test binary that is killed leaves its server behind.
func dieWithParent(*syscall.SysProcAttr) {}
