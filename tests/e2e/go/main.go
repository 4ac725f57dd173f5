// A chatroom client on grpc-go: says each line of stdin, prints each line heard.
//
// Usage: client ADDR NAME, with the room in CHATROOM_ROOM. When the call ends other than OK, the status goes to stderr
// and the exit code is 64 + the gRPC code, as grpcurl does it.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"chatroom.test/foreign/hello"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: client ADDR NAME")
		os.Exit(2)
	}
	if err := chat(os.Args[1], os.Args[2]); err != nil {
		ended := status.Convert(err)
		fmt.Fprintf(os.Stderr, "%v: %s\n", ended.Code(), ended.Message())
		os.Exit(64 + int(ended.Code()))
	}
}

func chat(addr, name string) error {
	connection, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()

	// Plain metadata is ASCII only; grpc-go encodes what ends in -bin.
	key := "chatroom-name"
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		key += "-bin"
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), key, name)
	if room := os.Getenv("CHATROOM_ROOM"); room != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "chatroom-room", room)
	}
	call, err := hello.NewChatRoomClient(connection).Chat(ctx)
	if err != nil {
		return err
	}
	go sayLines(call)

	for {
		response, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println(response.GetMessage())
	}
}

func sayLines(call hello.ChatRoom_ChatClient) {
	// Not a Scanner: that one has a limit on the line, and the test says more than a server takes.
	stdin := bufio.NewReader(os.Stdin)
	for {
		line, err := stdin.ReadString('\n')
		if err != nil {
			call.CloseSend()
			return
		}
		// A failed send means that the call has ended; Recv says why.
		if call.Send(&hello.ChatRequest{Message: strings.TrimSuffix(line, "\n")}) != nil {
			return
		}
	}
}
