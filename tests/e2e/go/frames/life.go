package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// life is one connection. It writes into out, and out goes to the socket now and then, whole or in pieces.
type life struct {
	*rand.Rand
	conn    *net.TCPConn
	out     bytes.Buffer
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
	streams []uint32
	manners manners
	did     count
	ended   bool
}

// How a connection behaves: one that breaks the rules is soon closed, and never meets most of the server.
type manners int

const (
	keepsRules manners = iota
	wrongAtLast
	anything
)

const preface = http2.ClientPreface

func live(conn *net.TCPConn, seed uint64, number int64) count {
	l := &life{Rand: rand.New(rand.NewPCG(seed, uint64(number))), conn: conn, next: 1}
	l.manners = []manners{keepsRules, keepsRules, wrongAtLast, anything}[l.IntN(4)]
	l.did.Ops = map[string]int{}
	l.encoder = hpack.NewEncoder(&l.block)
	deadline := time.Now().Add(time.Duration(l.IntN(int(longest))))
	conn.SetDeadline(deadline)
	goesOn := l.begins()
	reads := l.reader()
	if goesOn {
		favourite := legal[l.IntN(len(legal))]
		times := 1 + l.IntN(60)
		for done := range times {
			chosen := legal[l.IntN(len(legal))]
			switch {
			case l.manners == anything && l.IntN(4) == 0, l.manners == wrongAtLast && done == times-1:
				chosen = wrong[l.IntN(len(wrong))]
			case l.IntN(2) == 0:
				chosen = favourite
			}
			l.did.Ops[chosen.name]++
			chosen.does(l)
			if l.IntN(4) > 0 {
				l.flush()
			}
			if l.ended || time.Now().After(deadline) {
				break
			}
		}
	}
	l.ends()
	<-reads
	return l.did
}

// reader consumes what the server sends; one in eight does not read.
func (l *life) reader() <-chan struct{} {
	done := make(chan struct{})
	reads := l.IntN(8) > 0
	go func() {
		defer close(done)
		if reads {
			io.Copy(io.Discard, l.conn)
		}
	}()
	return done
}

// begins says whether the connection is to go on.
func (l *life) begins() bool {
	way := l.IntN(12)
	if l.manners != anything {
		way = max(way, 3)
	}
	switch way {
	case 0:
		l.out.Write(l.bytes(l.IntN(400)))
	case 1:
		l.out.WriteString("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n")
	case 2:
		l.out.WriteString(preface[:l.IntN(len(preface))])
	case 3:
		for i := range len(preface) {
			l.out.WriteByte(preface[i])
			l.flush()
		}
		return l.agrees()
	default:
		l.out.WriteString(preface)
		return l.agrees()
	}
	l.flush()
	return false
}

// agrees exchanges settings: an acknowledgement that comes before what it acknowledges would end the connection.
func (l *life) agrees() bool {
	if l.manners == anything && l.IntN(5) == 0 {
		return true
	}
	l.frame(settings, 0, 0, l.settings(l.IntN(4)))
	l.flush()
	var head [9]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return false
	}
	length := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
	if _, err := io.CopyN(io.Discard, l.conn, length); err != nil {
		return false
	}
	l.frame(settings, ack, 0, nil)
	return true
}

func (l *life) ends() {
	l.flush()
	switch l.IntN(4) {
	case 0:
		l.conn.SetLinger(0)
	case 1:
		l.conn.CloseWrite()
		time.Sleep(time.Duration(l.IntN(200)) * time.Millisecond)
	case 2:
		time.Sleep(time.Duration(l.IntN(100)) * time.Millisecond)
	}
	l.conn.Close()
}

// flush writes what has gathered; sometimes changed, cut off, or in pieces.
func (l *life) flush() {
	data := l.out.Bytes()
	if len(data) == 0 || l.ended {
		l.out.Reset()
		return
	}
	change := -1
	if l.manners == anything {
		change = l.IntN(30)
	}
	switch change {
	case 0:
		for range 1 + l.IntN(4) {
			data[l.IntN(len(data))] ^= byte(1 << l.IntN(8))
		}
	case 1:
		data = data[:l.IntN(len(data))]
	case 2:
		at := l.IntN(len(data))
		data = append(append(append([]byte{}, data[:at]...), l.bytes(1+l.IntN(30))...), data[at:]...)
	}
	piece := len(data)
	if l.IntN(10) == 0 {
		piece = 1 + l.IntN(64)
	}
	l.did.Bytes += len(data)
	for pieces := 0; len(data) > 0; pieces++ {
		if pieces > 50 {
			piece = len(data)
		}
		part := data[:min(piece, len(data))]
		if _, err := l.conn.Write(part); err != nil {
			l.ended = true
			break
		}
		data = data[len(part):]
	}
	l.out.Reset()
}

func (l *life) bytes(length int) []byte {
	data := make([]byte, length)
	for i := range data {
		data[i] = byte(l.Uint32())
	}
	return data
}

// frame appends one, with the length that it has.
func (l *life) frame(kind, flags byte, stream uint32, payload []byte) {
	l.header(len(payload), kind, flags, stream)
	l.out.Write(payload)
}

func (l *life) header(length int, kind, flags byte, stream uint32) {
	l.did.Frames++
	l.out.Write([]byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags})
	l.out.Write(number(stream))
}

func number(n uint32) []byte {
	return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}
