// Members of one room that check what they receive: grpc-go clients, some on transports of their own, some on a shared
// one. Two of them publish numbered messages. Whatever others say in the room is not looked at.
//
// Usage: canaries ADDR ROOM MEMBERS, until stdin ends. Prints `open` when all are in, and at the end one line of JSON: what
// went wrong, if anything, and how late messages came.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"chatroom.test/foreign/hello"
)

const (
	publishers = 2
	gap        = 20 * time.Millisecond
	patience   = 30 * time.Second // For the last message to arrive.
)

type member struct {
	call     hello.ChatRoom_ChatClient
	received [publishers]int
	order    []uint64 // After each message: the hash of all until then.
	late     []time.Duration
	fault    string
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: canaries ADDR ROOM MEMBERS")
		os.Exit(2)
	}
	count, err := strconv.Atoi(os.Args[3])
	if err != nil || count < publishers {
		fmt.Fprintln(os.Stderr, "canaries: not a number of members:", os.Args[3])
		os.Exit(2)
	}
	members := make([]*member, count)
	var shared *grpc.ClientConn
	for i := range members {
		if i < 2 || i%2 == 0 {
			if shared, err = grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		ctx := metadata.AppendToOutgoingContext(context.Background(), "chatroom-room", os.Args[2], "chatroom-name", "canary")
		call, err := hello.NewChatRoomClient(shared).Chat(ctx)
		if err == nil {
			_, err = call.Header()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		members[i] = &member{call: call}
	}
	fmt.Println("open")

	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	var listening, publishing sync.WaitGroup
	for _, m := range members {
		listening.Go(m.listen)
	}
	for i := range publishers {
		publishing.Go(func() { members[i].publish(i, over) })
	}
	publishing.Wait()
	time.AfterFunc(patience, func() {
		fmt.Fprintln(os.Stderr, "the last messages did not arrive in time")
		os.Exit(1)
	})
	listening.Wait()
	report(members)
}

func (m *member) publish(as int, over <-chan struct{}) {
	began := time.Now()
	for number, last := 1, false; !last; number++ {
		select {
		case <-over:
			last = true
		case <-time.After(time.Until(began.Add(time.Duration(number) * gap))):
		}
		text := fmt.Sprintf("canary %d %d %d %t", as, number, time.Now().UnixNano(), last)
		// A failed send means that the call has ended; Recv says why.
		if m.call.Send(&hello.ChatRequest{Message: text}) != nil {
			return
		}
	}
}

// listen returns when the last message of each publisher has come.
func (m *member) listen() {
	hash := fnv.New64()
	for ended := 0; ended < publishers; {
		response, err := m.call.Recv()
		if err != nil {
			m.fault = fmt.Sprintf("its call ended: %v", err)
			return
		}
		text := response.GetMessage()
		if !strings.HasPrefix(text, "canary ") {
			continue
		}
		var as, number int
		var sent int64
		var last bool
		if _, err := fmt.Sscanf(text, "canary %d %d %d %t", &as, &number, &sent, &last); err != nil || as >= publishers {
			m.fault = fmt.Sprintf("it received %q", text)
			return
		}
		if number != m.received[as]+1 {
			m.fault = fmt.Sprintf("after message %d of publisher %d it received %d", m.received[as], as, number)
			return
		}
		m.received[as] = number
		hash.Write([]byte(text))
		m.order = append(m.order, hash.Sum64())
		m.late = append(m.late, time.Since(time.Unix(0, sent)))
		if last {
			ended++
		}
	}
}

func report(members []*member) {
	result := struct {
		Faults   []string `json:"faults"`
		Messages int      `json:"messages"`
		P50      float64  `json:"p50_ms"`
		P99      float64  `json:"p99_ms"`
		Max      float64  `json:"max_ms"`
	}{Faults: []string{}, Messages: len(members[0].order)}
	var late []time.Duration
	for i, m := range members {
		if m.fault == "" && !slices.Equal(m.order, members[0].order) {
			m.fault = "it received another order than the first canary"
		}
		if m.fault != "" {
			result.Faults = append(result.Faults, fmt.Sprintf("canary %d: %s", i, m.fault))
		}
		late = append(late, m.late...)
	}
	slices.Sort(late)
	if len(late) > 0 {
		at := func(share float64) float64 { return late[int(share*float64(len(late)-1))].Seconds() * 1000 }
		result.P50, result.P99, result.Max = at(0.5), at(0.99), at(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
}
