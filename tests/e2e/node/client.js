// A chatroom client on @grpc/grpc-js: says each line of stdin, prints each line heard.
//
// Usage: client.js ADDR NAME, with the room in CHATROOM_ROOM. When the call ends other than OK, the status goes to
// stderr and the exit code is 64 + the gRPC code, as grpcurl does it.
"use strict";

const path = require("path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const [addr, name] = process.argv.slice(2);
const proto = path.join(__dirname, "../../../proto/hello/chat.proto");
const { hello } = grpc.loadPackageDefinition(protoLoader.loadSync(proto, { defaults: true }));

const metadata = new grpc.Metadata();
// Plain metadata is ASCII only.
if (/^[\x20-\x7e]*$/.test(name)) metadata.set("chatroom-name", name);
else metadata.set("chatroom-name-bin", Buffer.from(name));
if (process.env.CHATROOM_ROOM) metadata.set("chatroom-room", process.env.CHATROOM_ROOM);

const client = new hello.ChatRoom(addr, grpc.credentials.createInsecure());
const call = client.Chat(metadata);

call.on("data", (response) => process.stdout.write(response.message + "\n"));
call.on("error", () => {}); // "status" tells the same, and comes whatever the end was.
call.on("status", ({ code, details }) => {
  if (code !== grpc.status.OK) {
    process.stderr.write(`${grpc.status[code]}: ${details}\n`);
    process.exit(64 + code);
  }
  client.close();
});

// Not readline: it also splits at U+2028, which is a character like any other here.
let unfinished = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (text) => {
  const lines = (unfinished + text).split("\n");
  unfinished = lines.pop();
  for (const message of lines) call.write({ message });
});
process.stdin.on("end", () => call.end());
