// Members of chatroom.v1 that chat without end: each joins, says a line now and then, and when its call ends, goes on
// after the position that it has, a moment later.
//
// Usage: members ADDR NAME COUNT ROOM..., with so many members NAME-0, NAME-1… in each room; what it reads and prints is
// what ../../python/members.py does for join. Every other member has a TCP connection of its own.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"chatroom.test/foreign/chatroom/v1"
	"chatroom.test/foreign/report"
)

// Between two lines of one member; and before it comes back.
const (
	pauseLeast, pauseMost = 100 * time.Millisecond, 300 * time.Millisecond
	backLeast, backMost   = 50 * time.Millisecond, 150 * time.Millisecond
)

type member struct {
	name, room string
	inBody     string // The room again, or nothing: the metadata has it.
	client     chatroomv1.ChatServiceClient
	position   *chatroomv1.Position
	said       int
}

// end is how a call went.
type end struct {
	Member string   `json:"member"`
	Room   string   `json:"room"`
	Heard  []string `json:"heard"`
	Ended  float64  `json:"ended"`
	report.Status
	After     string      `json:"after"`
	Welcome   string      `json:"welcome"`
	Gap       *gap        `json:"gap"`
	Goodbye   *goodbye    `json:"goodbye"`
	Positions []string    `json:"positions"`
	Acks      [][2]string `json:"acks"`
	Others    []string    `json:"others"`
}

type gap struct {
	Reason string `json:"reason"`
	To     string `json:"to"`
}

type goodbye struct {
	Reason   string  `json:"reason"`
	Position string  `json:"position"`
	Retry    float64 `json:"retry"`
}

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: members ADDR NAME COUNT ROOM...")
		os.Exit(2)
	}
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, "members: not a number of members:", os.Args[3])
		os.Exit(2)
	}
	shared := connect(os.Args[1])
	var members []*member
	for _, room := range os.Args[4:] {
		for range count {
			number := len(members)
			m := &member{name: fmt.Sprintf("%s-%d", os.Args[2], number), room: room}
			if number%2 == 0 {
				m.client = chatroomv1.NewChatServiceClient(shared)
			} else {
				m.client, m.inBody = chatroomv1.NewChatServiceClient(connect(os.Args[1])), room
			}
			members = append(members, m)
		}
	}
	stop := make(chan struct{})
	var chatting sync.WaitGroup
	for _, m := range members {
		chatting.Go(func() { m.chat(stop) })
	}
	orders := bufio.NewScanner(os.Stdin)
	for number := 0; orders.Scan(); number++ {
		for _, m := range members {
			report.Emit(m.publish(fmt.Sprintf("aside %d of %s", number, m.name)))
		}
	}
	close(stop)
	chatting.Wait()
}

func connect(address string) *grpc.ClientConn {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return connection
}

func (m *member) chat(stop <-chan struct{}) {
	for {
		ended := &end{Member: m.name, Room: m.room, Heard: []string{}}
		err := m.call(ended, stop)
		if err == io.EOF {
			err = nil
		}
		ended.Ended, ended.Status = float64(time.Now().UnixNano())/1e9, report.StatusOf(err)
		report.Emit(ended)
		select {
		case <-stop:
			return
		case <-time.After(between(backLeast, backMost)):
		}
	}
}

func (m *member) call(ended *end, stop <-chan struct{}) error {
	call, err := m.client.Join(m.context())
	if err != nil {
		return err
	}
	hello := &chatroomv1.Hello{Room: m.inBody, DisplayName: m.name}
	if m.position != nil {
		hello.Start = &chatroomv1.Start{At: &chatroomv1.Start_After{After: m.position}}
	}
	ended.After = asText(m.position)
	// A failed send means that the call has ended; Recv says why.
	over := make(chan struct{})
	var speaking sync.WaitGroup
	speaking.Go(func() {
		if call.Send(&chatroomv1.JoinRequest{Request: &chatroomv1.JoinRequest_Hello{Hello: hello}}) == nil {
			m.speak(call, stop, over)
		}
	})
	defer speaking.Wait()
	defer close(over)
	for {
		response, err := call.Recv()
		if err != nil {
			return err
		}
		m.receive(response, ended)
	}
}

func (m *member) speak(call chatroomv1.ChatService_JoinClient, stop, over <-chan struct{}) {
	for {
		line := fmt.Sprintf("%s %d", m.name, m.said)
		m.said++
		publish := &chatroomv1.Publish{Reference: line, Body: text(line)}
		if call.Send(&chatroomv1.JoinRequest{Request: &chatroomv1.JoinRequest_Publish{Publish: publish}}) != nil {
			return
		}
		select {
		case <-stop:
			call.CloseSend()
			return
		case <-over:
			return
		case <-time.After(between(pauseLeast, pauseMost)):
		}
	}
}

func (m *member) receive(response *chatroomv1.JoinResponse, ended *end) {
	switch told := response.GetResponse().(type) {
	case *chatroomv1.JoinResponse_Welcome:
		m.position = told.Welcome.GetPosition()
		ended.Welcome = asText(m.position)
		ended.Positions, ended.Acks, ended.Others = []string{}, [][2]string{}, []string{}
		return
	case *chatroomv1.JoinResponse_Event:
		m.position = told.Event.GetPosition()
		ended.Positions = append(ended.Positions, asText(m.position))
		ended.Heard = append(ended.Heard, told.Event.GetBody().GetText())
		return
	case *chatroomv1.JoinResponse_Ack:
		ended.Acks = append(ended.Acks, [2]string{asText(told.Ack.GetPosition()), told.Ack.GetReference()})
		return
	case *chatroomv1.JoinResponse_Gap:
		if ended.Gap == nil && len(ended.Heard) == 0 {
			ended.Gap = &gap{told.Gap.GetReason().String(), asText(told.Gap.GetTo())}
			return
		}
	case *chatroomv1.JoinResponse_Goodbye:
		if bye := told.Goodbye; ended.Goodbye == nil {
			retry := bye.GetRetryAfter().AsDuration().Seconds()
			ended.Goodbye = &goodbye{bye.GetReason(), asText(bye.GetPosition()), retry}
			return
		}
	}
	ended.Others = append(ended.Others, fmt.Sprint(response))
}

// publish says a line by Publish, and tells what that, ListEvents and ListMembers know of it.
func (m *member) publish(line string) any {
	type published struct {
		Published string `json:"published"`
		Member    string `json:"member"`
		Room      string `json:"room"`
		report.Status
		Listed  [][2]string `json:"listed"`
		Members []string    `json:"members"`
	}
	told := published{Published: line, Member: m.name, Room: m.room}
	request := &chatroomv1.PublishRequest{Room: m.inBody, DisplayName: m.name, Body: text(line)}
	answer, err := m.client.Publish(m.context(), request)
	position := answer.GetPosition()
	if err == nil {
		before := &chatroomv1.Position{Epoch: position.GetEpoch(), Offset: position.GetOffset() - 1}
		start := &chatroomv1.Start{At: &chatroomv1.Start_After{After: before}}
		var events *chatroomv1.ListEventsResponse
		events, err = m.client.ListEvents(m.context(), &chatroomv1.ListEventsRequest{Room: m.inBody, Start: start, PageSize: 1})
		for _, event := range events.GetEvents() {
			told.Listed = append(told.Listed, [2]string{asText(event.GetPosition()), event.GetBody().GetText()})
		}
	}
	if err == nil {
		var members *chatroomv1.ListMembersResponse
		members, err = m.client.ListMembers(m.context(), &chatroomv1.ListMembersRequest{Room: m.inBody})
		for _, member := range members.GetMembers() {
			told.Members = append(told.Members, member.GetDisplayName())
		}
	}
	told.Status = report.StatusOf(err)
	if err == nil {
		told.Position = asText(position)
	}
	return told
}

func (m *member) context() context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "chatroom-room", m.room)
}

func text(line string) *chatroomv1.Body {
	return &chatroomv1.Body{Body: &chatroomv1.Body_Text{Text: line}}
}

func asText(position *chatroomv1.Position) string {
	if position == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", position.GetEpoch(), position.GetOffset())
}

func between(least, most time.Duration) time.Duration {
	return least + rand.N(most-least)
}
