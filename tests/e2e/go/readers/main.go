// Readers on grpc-go, all in one room: steady ones, slow ones, and ones that stop for a while.
//
// Usage: readers ADDR PLAN, with the plan as JSON (see ../../slow_consumers.py). Prints one line of JSON when a call is
// open, and one when it has ended. A reader that was disconnected with a position opens the next call from there.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"chatroom.test/foreign/report"
)

type reader struct {
	Name      string
	Room      string
	API       string  // "hello", "join" or "subscribe"
	Pace      string  // "steady", "slow" or "pausing"
	Seconds   float64 // For how long it is slow or pauses; then it reads on.
	Transport string  // Readers that name the same one share it; one of its own if empty.
	Further   int     // How many messages to read after a disconnect.
}

// One call, from its opening to its end.
type leg struct {
	Name          string   `json:"name"`
	report.Status          // With no code if the reader had all that it wanted.
	Ranges        [][2]int `json:"ranges"` // Runs of consecutive numbers, in order of receipt.
	End           bool     `json:"end"`    // It received the last message.
	Notes         []string `json:"notes"`  // Whatever else the call delivered.
}

const (
	slowGap    = 10 * time.Millisecond // 100 messages a second
	pauseAfter = 20                    // messages
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: readers ADDR PLAN")
		os.Exit(2)
	}
	var plan []*reader
	if err := json.Unmarshal([]byte(os.Args[2]), &plan); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	transports := map[string]*grpc.ClientConn{}
	var all sync.WaitGroup
	for _, r := range plan {
		name := r.Transport
		if name == "" {
			name = "of " + r.Name
		}
		if transports[name] == nil {
			transport, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			transports[name] = transport
		}
		// Looked up here: the map is still being filled.
		transport := transports[name]
		all.Go(func() { r.run(transport) })
	}
	all.Wait()
}

func (r *reader) run(transport *grpc.ClientConn) {
	position := ""
	for {
		ended := r.call(transport, position)
		report.Emit(ended)
		if ended.Reason != "SLOW_CONSUMER" || ended.Position == "" {
			return
		}
		position = ended.Position
		time.Sleep(time.Duration(ended.Retry * float64(time.Second)))
	}
}

func (r *reader) call(transport *grpc.ClientConn, position string) *leg {
	leg := &leg{Name: r.Name, Ranges: [][2]int{}, Notes: []string{}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	next, err := r.open(ctx, transport, position, leg)
	if err == nil {
		report.Emit(map[string]string{"open": r.Name})
		err = r.read(next, leg, position != "")
	}
	if err != nil {
		leg.Status = report.StatusOf(err)
	}
	return leg
}

// read returns nil when the reader has what it wanted.
func (r *reader) read(next func() (string, error), leg *leg, resumed bool) error {
	var began time.Time
	for count := 1; ; count++ {
		text, err := next()
		if err != nil {
			return err
		}
		first, rest, _ := strings.Cut(text, " ")
		number, err := strconv.Atoi(first)
		if err != nil {
			return err
		}
		leg.received(number)
		if count == 1 {
			began = time.Now()
		}
		leg.End = rest == "end"
		if leg.End || resumed && count == r.Further {
			return nil
		}
		switch {
		case resumed:
		case r.Pace == "slow" && time.Since(began).Seconds() < r.Seconds:
			time.Sleep(slowGap)
		case r.Pace == "pausing" && count == pauseAfter:
			time.Sleep(time.Duration(r.Seconds * float64(time.Second)))
		}
	}
}

func (l *leg) received(number int) {
	if last := len(l.Ranges) - 1; last >= 0 && l.Ranges[last][1]+1 == number {
		l.Ranges[last][1] = number
		return
	}
	l.Ranges = append(l.Ranges, [2]int{number, number})
}
