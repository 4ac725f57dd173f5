// Sends short texts on one call of hello.ChatRoom as fast as grpc-go takes them, beside others on the same transport: two
// that listen in the room, and one that talks in another room.
//
// Usage: flood ADDR NAME TEXTS RUNS LONGEST, with texts of 1 to LONGEST bytes. Runs are one after the other; prints a line
// of JSON for each.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"chatroom.test/foreign/hello"
)

const (
	letters  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	patience = 60 * time.Second
	pause    = 20 * time.Millisecond // Between two words of the one in the other room.
)

type end struct {
	Fault   string  `json:"fault"` // What went wrong, if anything.
	Seconds float64 `json:"seconds"`
	Asides  int     `json:"asides"` // How often the one in the other room has heard itself.
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: flood ADDR NAME TEXTS RUNS LONGEST")
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
	for run := range figures[1] {
		room := fmt.Sprintf("%s-%d", os.Args[2], run)
		texts := shortTexts(rand.New(rand.NewSource(int64(run))), figures[0], figures[2])
		if err := json.NewEncoder(os.Stdout).Encode(flood(os.Args[1], room, texts)); err != nil {
			panic(err)
		}
	}
}

func shortTexts(random *rand.Rand, count, longest int) []string {
	texts := make([]string, count)
	for i := range texts {
		text := make([]byte, 1+random.Intn(longest))
		for j := range text {
			text[j] = letters[random.Intn(len(letters))]
		}
		texts[i] = string(text)
	}
	return texts
}

func flood(addr, room string, texts []string) end {
	began := time.Now()
	result := end{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	transport, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return end{Fault: err.Error()}
	}
	defer transport.Close()
	client := hello.NewChatRoomClient(transport)

	var calls [4]hello.ChatRoom_ChatClient
	for i := range calls {
		of := room
		if i == 3 {
			of += "-aside"
		}
		calls[i], err = client.Chat(metadata.AppendToOutgoingContext(ctx, "chatroom-room", of))
		if err == nil {
			_, err = calls[i].Header()
		}
		if err != nil {
			return end{Fault: err.Error()}
		}
	}
	var faults [4]string
	over := make(chan struct{})
	var listeners, aside sync.WaitGroup
	for i, who := range []string{"sender", "neighbour 1", "neighbour 2"} {
		listeners.Go(func() { faults[i] = receives(who, calls[i], texts) })
	}
	aside.Go(func() { result.Asides, faults[3] = talks(calls[3], over) })
	for _, text := range texts {
		// A failed send means that the call has ended; Recv says why.
		if calls[0].Send(&hello.ChatRequest{Message: text}) != nil {
			break
		}
	}
	calls[0].CloseSend()
	listeners.Wait()
	close(over)
	aside.Wait()
	for _, fault := range faults {
		if fault != "" {
			result.Fault = fault
			break
		}
	}
	result.Seconds = time.Since(began).Seconds()
	return result
}

// receives says what is wrong with what came; after the last text it half-closes, and its call must end OK.
func receives(who string, call hello.ChatRoom_ChatClient, texts []string) string {
	for i, text := range texts {
		response, err := call.Recv()
		if err != nil {
			return fmt.Sprintf("%s, after %d of %d texts: %v", who, i, len(texts), err)
		}
		if response.GetMessage() != text {
			return fmt.Sprintf("%s: text %d is %q, not %q", who, i, response.GetMessage(), text)
		}
	}
	call.CloseSend()
	if response, err := call.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Sprintf("%s, after all texts: %v %v", who, response, err)
	}
	return ""
}

func talks(call hello.ChatRoom_ChatClient, over <-chan struct{}) (int, string) {
	for count := 0; ; count++ {
		word := strconv.Itoa(count)
		if err := call.Send(&hello.ChatRequest{Message: word}); err == nil || errors.Is(err, io.EOF) {
			response, err := call.Recv()
			if err != nil {
				return count, fmt.Sprintf("neighbour in another room: %v", err)
			}
			if response.GetMessage() != word {
				return count, fmt.Sprintf("neighbour in another room: %q, not %q", response.GetMessage(), word)
			}
		}
		select {
		case <-over:
			return count + 1, ""
		case <-time.After(pause):
		}
	}
}
