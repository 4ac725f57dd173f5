package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"chatroom.test/foreign/chatroom/v1"
	"chatroom.test/foreign/hello"
)

// open returns once the reader is in the room. What it returns waits for the next text; its error is the call's status.
func (r *reader) open(ctx context.Context, on *grpc.ClientConn, position string, leg *leg) (func() (string, error), error) {
	if r.API == "hello" {
		return r.openHello(ctx, on, position)
	}
	start := &chatroomv1.Start{}
	if position != "" {
		after, err := parsePosition(position)
		if err != nil {
			return nil, err
		}
		start.At = &chatroomv1.Start_After{After: after}
	}
	client := chatroomv1.NewChatServiceClient(on)
	if r.API == "subscribe" {
		request := &chatroomv1.SubscribeRequest{Room: r.Room, DisplayName: r.Name, Start: start}
		call, err := client.Subscribe(ctx, request)
		if err != nil {
			return nil, err
		}
		return readV1(func() (response, error) { return call.Recv() }, leg)
	}
	call, err := client.Join(ctx)
	if err != nil {
		return nil, err
	}
	joins := &chatroomv1.Hello{Room: r.Room, DisplayName: r.Name, Start: start}
	if err := call.Send(&chatroomv1.JoinRequest{Request: &chatroomv1.JoinRequest_Hello{Hello: joins}}); err != nil {
		return nil, err
	}
	return readV1(func() (response, error) { return call.Recv() }, leg)
}

func (r *reader) openHello(ctx context.Context, on *grpc.ClientConn, position string) (func() (string, error), error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "chatroom-room", r.Room, "chatroom-name", r.Name)
	if position != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "chatroom-resume", position)
	}
	call, err := hello.NewChatRoomClient(on).Chat(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := call.Header(); err != nil {
		return nil, err
	}
	return func() (string, error) {
		response, err := call.Recv()
		return response.GetMessage(), err
	}, nil
}

// response is what JoinResponse and SubscribeResponse have in common.
type response interface {
	GetWelcome() *chatroomv1.Welcome
	GetEvent() *chatroomv1.Event
	GetGoodbye() *chatroomv1.Goodbye
}

func readV1(receive func() (response, error), leg *leg) (func() (string, error), error) {
	first, err := receive()
	if err != nil {
		return nil, err
	}
	if first.GetWelcome() == nil {
		return nil, fmt.Errorf("the first response is no welcome: %v", first)
	}
	return func() (string, error) {
		for {
			response, err := receive()
			if err != nil {
				if err == io.EOF {
					err = fmt.Errorf("the call ended OK")
				}
				return "", err
			}
			if event := response.GetEvent(); event != nil {
				return event.GetBody().GetText(), nil
			}
			if goodbye := response.GetGoodbye(); goodbye != nil {
				at := goodbye.GetPosition()
				note := fmt.Sprintf("goodbye %s %s:%d", goodbye.GetReason(), at.GetEpoch(), at.GetOffset())
				leg.Notes = append(leg.Notes, note)
				continue
			}
			leg.Notes = append(leg.Notes, fmt.Sprint(response))
		}
	}, nil
}

func parsePosition(text string) (*chatroomv1.Position, error) {
	epoch, offset, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(offset, 10, 64)
	if err != nil {
		return nil, err
	}
	return &chatroomv1.Position{Epoch: epoch, Offset: number}, nil
}
