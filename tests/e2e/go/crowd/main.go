// Many calls of hello.ChatRoom on one transport with windows of 65,535 bytes, which is less than two messages. One of
// the readers stops after its first message; the others must receive all. The publisher has a transport of its own, and
// publishes the next message when the others have the one before.
//
// Usage: crowd ADDR ROOM STREAMS MESSAGES BYTES. Prints what the stopped one meets when it reads on, as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"chatroom.test/foreign/chatroom/v1"
	"chatroom.test/foreign/hello"
)

const (
	window   = 65535
	patience = 30 * time.Second
	notice   = 3 * time.Second
)

type crowd struct {
	messages int
	received []atomic.Int64 // Per message: how many have it.
	failed   chan error
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: crowd ADDR ROOM STREAMS MESSAGES BYTES")
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
	if err := run(os.Args[1], os.Args[2], figures[0], figures[1], figures[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr, room string, streams, messages, size int) error {
	plaintext := grpc.WithTransportCredentials(insecure.NewCredentials())
	shared, err := grpc.NewClient(addr, plaintext, grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
	if err != nil {
		return err
	}
	defer shared.Close()
	own, err := grpc.NewClient(addr, plaintext)
	if err != nil {
		return err
	}
	defer own.Close()

	c := &crowd{messages: messages, received: make([]atomic.Int64, messages), failed: make(chan error, streams)}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "chatroom-room", room))
	defer cancel()
	var stopped hello.ChatRoom_ChatClient
	for number := range streams {
		call, err := hello.NewChatRoomClient(shared).Chat(ctx)
		if err != nil {
			return err
		}
		if _, err := call.Header(); err != nil {
			return fmt.Errorf("stream %d of %d: %w", number, streams, err)
		}
		if stopped == nil {
			stopped = call
			continue
		}
		go func() {
			if err := c.read(call); err != nil {
				c.failed <- fmt.Errorf("reader %d: %w", number, err)
			}
		}()
	}
	if err := c.publishTo(chatroomv1.NewChatServiceClient(own), room, size, streams-1); err != nil {
		return err
	}
	// The server looks once in a while who lags.
	time.Sleep(notice)
	late := time.AfterFunc(patience, cancel)
	defer late.Stop()
	return tellEnd(stopped)
}

func (c *crowd) read(call hello.ChatRoom_ChatClient) error {
	for number := range c.messages {
		response, err := call.Recv()
		if err != nil {
			return err
		}
		if got, _, _ := strings.Cut(response.GetMessage(), " "); got != strconv.Itoa(number) {
			return fmt.Errorf("instead of message %d it received %s", number, got)
		}
		c.received[number].Add(1)
	}
	return nil
}

func (c *crowd) publishTo(room chatroomv1.ChatServiceClient, name string, size, readers int) error {
	for number := range c.messages {
		text := fmt.Sprintf("%d ", number)
		body := &chatroomv1.Body{Body: &chatroomv1.Body_Text{Text: text + strings.Repeat("x", size-len(text))}}
		if _, err := room.Publish(context.Background(), &chatroomv1.PublishRequest{Room: name, Body: body}); err != nil {
			return err
		}
		for deadline := time.Now().Add(patience); c.received[number].Load() < int64(readers); {
			select {
			case err := <-c.failed:
				return err
			case <-time.After(time.Millisecond):
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%d of %d have message %d of %d after %v", c.received[number].Load(), readers, number+1,
					c.messages, patience)
			}
		}
	}
	return nil
}

// tellEnd reads on where the stopped reader is, up to its status.
func tellEnd(call hello.ChatRoom_ChatClient) error {
	end := struct {
		Code, Reason, Position string
		Received               int
	}{}
	for {
		_, err := call.Recv()
		if err == nil {
			end.Received++
			continue
		}
		ended := status.Convert(err)
		end.Code = code.Code(ended.Code()).String()
		for _, detail := range ended.Details() {
			if info, is := detail.(*errdetails.ErrorInfo); is {
				end.Reason, end.Position = info.GetReason(), info.GetMetadata()["position"]
			}
		}
		return json.NewEncoder(os.Stdout).Encode(end)
	}
}
