package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Kinds of frames, and flags.
const (
	data, headers, priority, reset, settings = 0, 1, 2, 3, 4
	push, ping, goaway, window, continuation = 5, 6, 7, 8, 9

	ack, endStream, endHeaders, padded, prioritised = 1, 1, 4, 8, 32
)

var methods = []string{
	"/hello.ChatRoom/Chat", "/hello.ChatRoom/Chat", "/chatroom.v1.ChatService/Join", "/chatroom.v1.ChatService/Subscribe",
	"/chatroom.v1.ChatService/Publish", "/chatroom.v1.ChatService/ListEvents", "/chatroom.v1.ChatService/ListRooms",
	"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	"/hello.ChatRoom/None", "/",
}

type op struct {
	name string
	does func(*life)
}

// What HTTP/2 allows. Most of the server is met only by connections that keep to this.
var legal = []op{
	{"call", func(l *life) { l.call() }},
	{"call and message", func(l *life) { l.message(l.call()) }},
	{"message", func(l *life) { l.message(l.stream()) }},
	{"half-close", func(l *life) { l.data(l.stream(), nil, true) }},
	{"grpc prefix", func(l *life) { l.grpcPrefix(l.stream()) }},
	{"padding", func(l *life) {
		pad := l.IntN(256)
		l.frame(data, padded, l.stream(), append([]byte{byte(pad)}, make([]byte, pad)...))
	}},
	{"reset", func(l *life) {
		stream := l.stream()
		l.frame(reset, 0, stream, number(l.Uint32N(16)))
		l.forget(stream)
	}},
	{"call and reset", func(l *life) {
		for range 1 + l.IntN(40) {
			stream := l.call()
			l.frame(reset, 0, stream, number(8))
			l.forget(stream)
		}
	}},
	{"settings", func(l *life) { l.frame(settings, 0, 0, l.settings(l.IntN(6))) }},
	{"window", func(l *life) { l.frame(window, 0, l.stream(), number(1+l.Uint32N(1<<16))) }},
	{"window of all", func(l *life) { l.frame(window, 0, 0, number(1+l.Uint32N(1<<16))) }},
	{"windows closed and opened", func(l *life) { l.windows() }},
	{"ping", func(l *life) { l.frame(ping, 0, 0, l.bytes(8)) }},
	{"priority", func(l *life) { l.frame(priority, 0, l.stream(), append(number(0), byte(l.Uint32()))) }},
	{"flood", func(l *life) { l.flood(1 + l.IntN(300)) }},
	{"rest", func(l *life) {
		l.flush()
		time.Sleep(time.Duration(l.IntN(100)) * time.Millisecond)
	}},
}

// What it forbids, or what ends the connection.
var wrong = []op{
	{"message on any stream", func(l *life) { l.message(l.any()) }},
	{"message after the end", func(l *life) {
		stream := l.stream()
		l.frame(data, endStream, stream, nil)
		l.message(stream)
	}},
	{"wrong state", func(l *life) { l.wrongState() }},
	{"bad padding", func(l *life) {
		payload := append([]byte{byte(l.IntN(256))}, l.bytes(l.IntN(40))...)
		l.frame([]byte{data, headers}[l.IntN(2)], padded|endHeaders, l.stream(), payload)
	}},
	{"header block", func(l *life) { l.headerBlock() }},
	{"continuation", func(l *life) { l.continuations() }},
	{"wild settings", func(l *life) { l.frame(settings, byte(l.IntN(2)), 0, l.wildSettings(l.IntN(6))) }},
	{"bad settings", func(l *life) { l.frame(settings, byte(l.IntN(2)), l.any(), l.bytes(l.IntN(20))) }},
	{"bad window", func(l *life) { l.frame(window, 0, l.any(), number(l.increment())) }},
	{"ping with ack", func(l *life) { l.frame(ping, ack, 0, l.bytes(8)) }},
	{"goaway", func(l *life) { l.frame(goaway, 0, 0, append(number(l.any()), l.bytes(4+l.IntN(20))...)) }},
	{"long flood", func(l *life) { l.flood(1 + l.IntN(5000)) }},
	{"anything", func(l *life) { l.frame(byte(l.IntN(12)), byte(l.Uint32()), l.any(), l.bytes(l.IntN(100))) }},
	{"wrong length", func(l *life) {
		l.header(l.IntN(1<<16), byte(l.IntN(10)), byte(l.Uint32()), l.any())
		l.out.Write(l.bytes(l.IntN(300)))
	}},
}

// call opens one, mostly as it should be, and returns its stream.
func (l *life) call() uint32 {
	stream := l.next
	l.next += 2
	l.streams = append(l.streams, stream)
	method := methods[l.IntN(len(methods))]
	fields := [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "fuzz"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
		{"chatroom-room", fmt.Sprintf("fuzz-%d", l.IntN(8))}, {"chatroom-name", "fuzz"},
	}
	switch l.IntN(12) {
	case 0:
		fields = append(fields, [2]string{"chatroom-resume", fmt.Sprintf("%x:%d", l.Uint64(), l.IntN(100))})
	case 1:
		fields[6][1] = "canaries"
	case 2:
		at := 1 + l.IntN(len(fields)-1) // A wrong method would end the connection.
		fields[at][1] = l.printable(l.IntN(40))
	case 3:
		fields = append(fields, [2]string{"grpc-timeout", fmt.Sprintf("%dm", l.IntN(500))})
	case 4:
		fields = append(fields, [2]string{"grpc-encoding", []string{"gzip", "identity", "br", ""}[l.IntN(4)]})
	}
	l.frame(headers, endHeaders, stream, l.encoded(fields))
	return stream
}

func (l *life) printable(length int) string {
	text := l.bytes(length)
	for i := range text {
		text[i] = ' ' + text[i]%95
	}
	return string(text)
}

func (l *life) encoded(fields [][2]string) []byte {
	l.block.Reset()
	for _, field := range fields {
		l.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: l.IntN(9) == 0})
	}
	return append([]byte{}, l.block.Bytes()...)
}

// message is one of hello, or bytes that are none.
func (l *life) message(stream uint32) {
	text := strings.Repeat("z", l.IntN(100))
	body := append([]byte{10, byte(len(text))}, text...)
	switch l.IntN(8) {
	case 0:
		body = l.bytes(l.IntN(200))
	case 1: // JoinRequest with an empty hello.
		body = []byte{10, 0}
	case 2:
		body = nil
	}
	framed := append(append([]byte{0}, number(uint32(len(body)))...), body...)
	if cut := l.IntN(len(framed)); l.IntN(4) == 0 {
		l.data(stream, framed[:cut], false)
		framed = framed[cut:]
	}
	l.data(stream, framed, l.IntN(6) == 0)
}

func (l *life) data(stream uint32, payload []byte, last bool) {
	if !last {
		l.frame(data, 0, stream, payload)
		return
	}
	l.frame(data, endStream, stream, payload)
	l.forget(stream)
}

func (l *life) grpcPrefix(stream uint32) {
	lengths := []uint32{0, 1, 65535, 65536, 65537, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 1}
	prefix := append([]byte{byte(l.IntN(4))}, number(lengths[l.IntN(len(lengths))])...)
	l.data(stream, append(prefix[:1+l.IntN(5)], l.bytes(l.IntN(50))...), l.IntN(3) == 0)
}

func (l *life) wrongState() {
	stream := []uint32{0, 2, l.next + 100, l.next, 1<<31 - 1}[l.IntN(5)]
	switch l.IntN(6) {
	case 0:
		l.frame(data, 0, stream, l.bytes(l.IntN(20)))
	case 1: // Trailers, or a second opening.
		l.frame(headers, endHeaders|byte(l.IntN(2)), l.stream(), l.encoded([][2]string{{"x", "y"}}))
	case 2:
		l.frame(headers, endHeaders, stream, l.encoded([][2]string{{":method", "POST"}, {":path", methods[0]}}))
	case 3:
		l.frame(push, endHeaders, l.stream(), append(number(2), l.bytes(10)...))
	case 4: // On a stream that it has closed.
		closed := l.stream()
		l.frame(data, endStream, closed, nil)
		l.message(closed)
		l.forget(closed)
	case 5:
		l.frame(priority, 0, l.any(), append(number(l.any()), byte(l.Uint32())))
	}
}

func (l *life) headerBlock() {
	stream := l.next
	l.next += 2
	var block []byte
	switch l.IntN(5) {
	case 0:
		block = l.bytes(l.IntN(300))
	case 1: // Sizes of the dynamic table.
		block = append([]byte{0x3f, byte(l.Uint32()), byte(l.IntN(128))}, l.encoded([][2]string{{":method", "POST"}})...)
	case 2: // A header list that is too large, each field a byte of the block.
		block = l.encoded([][2]string{{":method", "POST"}, {"bomb", strings.Repeat("b", 3000)}})
		for range l.IntN(4000) {
			block = append(block, 0xbe)
		}
	case 3: // Huffman codes that are none.
		block = append([]byte{0x40, 0x80 | byte(l.IntN(60))}, l.bytes(64)...)
	case 4:
		block = l.encoded([][2]string{{":method", "POST"}, {":path", methods[0]}, {":path", "/"}, {"Upper", "case"}, {"te", "x"}})
	}
	flags := endHeaders | byte(l.IntN(2))
	if l.IntN(5) == 0 {
		flags |= prioritised
		block = append(append(number(l.any()), byte(l.Uint32())), block...)
	}
	l.frame(headers, flags, stream, block)
}

func (l *life) continuations() {
	stream := l.next
	l.next += 2
	l.frame(headers, 0, stream, l.encoded([][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", methods[0]}}))
	for range l.IntN(300) {
		l.frame(continuation, 0, stream, l.bytes(l.IntN(2)*l.IntN(60)))
	}
	if l.IntN(2) == 0 {
		l.frame(continuation, endHeaders, stream, nil)
	}
}

// settings are all allowed.
func (l *life) settings(count int) []byte {
	var payload []byte
	for range count {
		switch l.IntN(5) {
		case 0: // The table of header fields.
			payload = append(append(payload, 0, 1), number(l.Uint32N(1<<16))...)
		case 1: // Concurrent streams, of those that a server would open.
			payload = append(append(payload, 0, 3), number(l.Uint32N(100))...)
		case 2: // The initial window.
			payload = append(append(payload, 0, 4), number([]uint32{0, 1, 100, 65535, 1 << 20}[l.IntN(5)])...)
		case 3: // The longest frame.
			payload = append(append(payload, 0, 5), number(16384+l.Uint32N(1<<20))...)
		case 4: // The longest list of header fields.
			payload = append(append(payload, 0, 6), number(l.Uint32N(1<<16))...)
		}
	}
	return payload
}

func (l *life) wildSettings(count int) []byte {
	var payload []byte
	for range count {
		value := []uint32{0, 1, 2, 100, 4096, 16384, 65535, 1 << 20, 1<<31 - 1, 1<<32 - 1}[l.IntN(10)]
		payload = append(append(payload, 0, byte(l.IntN(10))), number(value)...)
	}
	return payload
}

func (l *life) windows() {
	for range 1 + l.IntN(20) {
		value := []uint32{0, 1, 100, 65535, 1 << 20}[l.IntN(5)]
		l.frame(settings, 0, 0, append([]byte{0, 4}, number(value)...))
		if l.IntN(2) == 0 {
			l.frame(window, 0, l.stream(), number(1+l.Uint32N(100)))
		}
	}
}

func (l *life) flood(times int) {
	kind := l.IntN(8)
	for range times {
		switch kind {
		case 0:
			l.frame(ping, 0, 0, make([]byte, 8))
		case 1:
			l.frame(settings, 0, 0, nil)
		case 2:
			l.frame(window, 0, 0, number(1))
		case 3:
			l.frame(data, 0, l.stream(), nil)
		case 4:
			l.frame(priority, 0, l.stream(), []byte{0, 0, 0, 0, 1})
		case 5: // The server must reset these itself.
			stream := l.call()
			l.frame(window, 0, stream, number(1<<31-1))
			l.forget(stream)
		case 6:
			stream := l.call()
			l.frame(reset, 0, stream, number(8))
			l.forget(stream)
		case 7:
			l.frame(data, 0, l.stream(), []byte{0})
		}
		if l.out.Len() > 1<<16 {
			l.flush()
		}
		if l.ended {
			return
		}
	}
}

// stream is one that is open, as far as this end knows.
func (l *life) stream() uint32 {
	if len(l.streams) == 0 {
		return l.call()
	}
	return l.streams[len(l.streams)-1-l.IntN(min(len(l.streams), 10))]
}

func (l *life) forget(stream uint32) {
	l.streams = slices.DeleteFunc(l.streams, func(open uint32) bool { return open == stream })
}

func (l *life) any() uint32 {
	switch l.IntN(4) {
	case 0:
		return 0
	case 1:
		return l.Uint32()
	}
	return l.Uint32N(l.next + 4)
}

func (l *life) increment() uint32 {
	return []uint32{0, 1, 5, 1000, 65535, 1 << 20, 1<<31 - 1, 1 << 31}[l.IntN(8)]
}
