// Command forward serves a port of a lab's network on the loopback address of
// this machine, so that a browser here can visit the lab.
//
// Usage: forward NETNS PORT HOST:PORT
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: forward NETNS PORT HOST:PORT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		os.Exit(1)
	}
}

func run(netns, port, target string) error {
	// The listener is opened on this side, before any thread changes sides.
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	defer listener.Close()
	for {
		visitor, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer visitor.Close()
			host, err := dialInside(netns, target)
			if err != nil {
				fmt.Fprintln(os.Stderr, "forward:", err)
				return
			}
			defer host.Close()
			splice(visitor, host)
		}()
	}
}

// dialInside connects from within a network namespace. The thread that entered
// it is never unlocked, so the runtime ends it with its goroutine and no other
// goroutine finds itself on the wrong side.
func dialInside(netns, target string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open(netns)
		if err != nil {
			done <- result{err: err}
			return
		}
		defer func() { _ = ns.Close() }() // it is only read
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("enter %s: %w", netns, err)}
			return
		}
		conn, err := net.Dial("tcp", target)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// splice copies both ways until both are done.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // an interrupted copy is an ended connection
			if half, ok := pair[0].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
		})
	}
	wg.Wait()
}
