// Speaks wrong HTTP/2 on many connections at a time: valid, mutated and truncated frames, floods, frames in wrong states,
// random header blocks and gRPC prefixes, resets at any moment, changes of settings, games with windows.
//
// Usage: frames ADDR SEED SECONDS [FIRST-LAST]. What a connection does depends on the seed and its number alone; with
// FIRST-LAST just those are made, as in an earlier run. When nobody listens any more, prints the numbers of the
// connections that were open then, and ends with 3.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	atOnce   = 24
	longest  = 3 * time.Second // A connection's life.
	attempts = 20              // To connect, before the server counts as gone.
)

type fuzz struct {
	addr string
	seed uint64
	over time.Time
	next atomic.Int64
	last int64

	guard sync.Mutex
	open  map[int64]bool
	total count
}

type count struct {
	Connections int            `json:"connections"`
	Frames      int            `json:"frames"`
	Bytes       int            `json:"bytes"`
	Ops         map[string]int `json:"ops"`
}

func main() {
	if len(os.Args) < 4 || len(os.Args) > 5 {
		fmt.Fprintln(os.Stderr, "usage: frames ADDR SEED SECONDS [FIRST-LAST]")
		os.Exit(2)
	}
	seed, err := strconv.ParseUint(os.Args[2], 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	seconds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	f := &fuzz{addr: os.Args[1], seed: seed, over: time.Now().Add(time.Duration(seconds) * time.Second)}
	f.open, f.total.Ops, f.last = map[int64]bool{}, map[string]int{}, 1<<62
	if len(os.Args) == 5 {
		first, last, _ := strings.Cut(os.Args[4], "-")
		from, err := strconv.ParseInt(first, 10, 64)
		if err == nil {
			f.last, err = strconv.ParseInt(last, 10, 64)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		f.next.Store(from)
	}
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(f.work)
	}
	workers.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(f.total); err != nil {
		panic(err)
	}
}

func (f *fuzz) work() {
	for time.Now().Before(f.over) {
		number := f.next.Add(1) - 1
		if number > f.last {
			return
		}
		f.guard.Lock()
		f.open[number] = true
		f.guard.Unlock()
		did := f.connect(number)
		f.guard.Lock()
		delete(f.open, number)
		f.total.Connections++
		f.total.Frames += did.Frames
		f.total.Bytes += did.Bytes
		for op, times := range did.Ops {
			f.total.Ops[op] += times
		}
		f.guard.Unlock()
	}
}

func (f *fuzz) connect(number int64) count {
	for attempt := range attempts {
		conn, err := net.DialTimeout("tcp", f.addr, 5*time.Second)
		if err == nil {
			return live(conn.(*net.TCPConn), f.seed, number)
		}
		time.Sleep(time.Duration(attempt) * 10 * time.Millisecond)
	}
	f.guard.Lock()
	defer f.guard.Unlock()
	numbers := []int64{}
	for number := range f.open {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	fmt.Fprintf(os.Stderr, "nobody listens at %s; open or just closed: %v\n", f.addr, numbers)
	os.Exit(3)
	return count{}
}
