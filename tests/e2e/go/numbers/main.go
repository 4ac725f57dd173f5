// Publishes numbered messages at a steady rate through hello.ChatRoom, and checks that it receives each in order.
//
// Usage: numbers ADDR ROOM RATE BYTES MAX, until stdin ends or so many are out. A message is its number, a space and
// padding; BYTES is its mean length, and lengths are spread evenly from half to one and a half of it. The last one has
// `end` for padding. Once all have come back, prints how many there were and ends with 0.
package main

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"chatroom.test/foreign/hello"
)

const tick = 5 * time.Millisecond

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: numbers ADDR ROOM RATE BYTES MAX")
		os.Exit(2)
	}
	var figures [3]int
	for i, text := range os.Args[3:] {
		figure, err := strconv.Atoi(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		figures[i] = figure
	}
	count, err := publish(os.Args[1], os.Args[2], figures[0], figures[1], figures[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(count)
}

func publish(addr, room string, rate, size, most int) (int, error) {
	transport, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer transport.Close()
	ctx := metadata.AppendToOutgoingContext(context.Background(), "chatroom-room", room, "chatroom-name", "numbers")
	call, err := hello.NewChatRoomClient(transport).Chat(ctx)
	if err != nil {
		return 0, err
	}
	enough := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(enough)
	}()
	go send(call, rate, size, most, enough)
	for number := 1; ; number++ {
		response, err := call.Recv()
		if err != nil {
			return 0, fmt.Errorf("instead of its message %d: %w", number, err)
		}
		got, rest, _ := strings.Cut(response.GetMessage(), " ")
		if got != strconv.Itoa(number) {
			return 0, fmt.Errorf("instead of its message %d it received %s", number, got)
		}
		if rest == "end" {
			return number, nil
		}
	}
}

func send(call hello.ChatRoom_ChatClient, rate, size, most int, enough <-chan struct{}) {
	random := rand.New(rand.NewSource(1))
	padding := strings.Repeat("x", 2*size)
	began := time.Now()
	number := 1
	// A failed send means that the call has ended; Recv says why.
	say := func(padding string) error {
		text := fmt.Sprintf("%d %s", number, padding)
		number++
		return call.Send(&hello.ChatRequest{Message: text})
	}
	for number < most {
		due := int(time.Since(began).Seconds() * float64(rate))
		for number < min(due, most) {
			if say(padding[:size/2+random.Intn(size)]) != nil {
				return
			}
		}
		select {
		case <-enough:
			most = 0
		case <-time.After(tick):
		}
	}
	say("end")
}
