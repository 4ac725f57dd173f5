// Calls each method of chatroom.v1 for one room, with metadata that names no room, another, or the room twice.
//
// Usage: room_header ADDR ROOM. Prints how each call ended as a line of JSON.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"chatroom.test/foreign/chatroom/v1"
	"chatroom.test/foreign/report"
)

const patience = 4 * time.Second

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: room_header ADDR ROOM")
		os.Exit(2)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	room := os.Args[2]
	for _, method := range methods(chatroomv1.NewChatServiceClient(connection), room) {
		for _, rooms := range [][]string{{}, {"another"}, {room, room}} {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			for _, named := range rooms {
				ctx = metadata.AppendToOutgoingContext(ctx, "chatroom-room", named)
			}
			err := method.call(ctx)
			cancel()
			report.Emit(struct {
				Method string   `json:"method"`
				Rooms  []string `json:"rooms"`
				report.Status
			}{method.name, rooms, report.StatusOf(err)})
		}
	}
}

type method struct {
	name string
	call func(context.Context) error
}

func methods(client chatroomv1.ChatServiceClient, room string) []method {
	return []method{
		{"Join", func(ctx context.Context) error {
			call, err := client.Join(ctx)
			if err != nil {
				return err
			}
			hello := &chatroomv1.JoinRequest_Hello{Hello: &chatroomv1.Hello{Room: room}}
			// A failed send means that the call has ended; Recv says why.
			_ = call.Send(&chatroomv1.JoinRequest{Request: hello})
			return endOf(func() (any, error) { return call.Recv() })
		}},
		{"Subscribe", func(ctx context.Context) error {
			call, err := client.Subscribe(ctx, &chatroomv1.SubscribeRequest{Room: room})
			if err != nil {
				return err
			}
			return endOf(func() (any, error) { return call.Recv() })
		}},
		{"Publish", func(ctx context.Context) error {
			body := &chatroomv1.Body{Body: &chatroomv1.Body_Text{Text: "hi"}}
			_, err := client.Publish(ctx, &chatroomv1.PublishRequest{Room: room, Body: body})
			return err
		}},
		{"ListEvents", func(ctx context.Context) error {
			_, err := client.ListEvents(ctx, &chatroomv1.ListEventsRequest{Room: room})
			return err
		}},
		{"ListMembers", func(ctx context.Context) error {
			_, err := client.ListMembers(ctx, &chatroomv1.ListMembersRequest{Room: room})
			return err
		}},
		{"ListRooms", func(ctx context.Context) error {
			_, err := client.ListRooms(ctx, &chatroomv1.ListRoomsRequest{})
			return err
		}},
	}
}

// endOf reads to the end of a call.
func endOf(receive func() (any, error)) error {
	for {
		if _, err := receive(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
