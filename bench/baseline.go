package main

import (
	"io"
	"net"
)

// serveBaseline is the relay that everybody writes in Go. It ends with the process.
func serveBaseline(listen, origin string) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go relayBaseline(c.(*net.TCPConn), origin) // ends with both of its connections
	}
}

func relayBaseline(client *net.TCPConn, origin string) {
	defer client.Close()
	c, err := net.Dial("tcp", origin)
	if err != nil {
		return
	}
	defer c.Close()
	upstream := c.(*net.TCPConn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(upstream, client)
		upstream.CloseWrite()
	}()
	io.Copy(client, upstream)
	client.CloseWrite()
	<-done
}
