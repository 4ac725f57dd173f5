// Readers on @grpc/grpc-js, all in one room: steady ones, slow ones, and ones that stop for a while.
//
// Usage: readers.js ADDR PLAN, with the plan as JSON (see ../slow_consumers.py). Prints one line of JSON when a call is
// open, and one when it has ended. A reader that was disconnected with a position opens the next call from there.
"use strict";

const path = require("path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const { statusDetails } = require("./status");

const SLOW_GAP_MS = 10; // 100 messages a second
const PAUSE_AFTER = 20; // messages
// grpc-js gives clients of one address the same TCP connection otherwise.
const OWN_CONNECTION = { "grpc.use_local_subchannel_pool": 1 };

const proto = path.join(__dirname, "../../../proto");
const loaded = protoLoader.loadSync(["hello/chat.proto", "chatroom/v1/chat.proto"], {
  includeDirs: [proto], defaults: false, longs: String, oneofs: true, keepCase: true,
});
const { hello, chatroom } = grpc.loadPackageDefinition(loaded);

const [addr, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);
const transports = new Map();
let running = plan.length;

for (const reader of plan) {
  const name = reader.transport || `of ${reader.name}`;
  if (!transports.has(name)) {
    transports.set(name, new grpc.Channel(addr, grpc.credentials.createInsecure(), OWN_CONNECTION));
  }
  const options = { channelOverride: transports.get(name) };
  const chat = new hello.ChatRoom(addr, grpc.credentials.createInsecure(), options);
  const service = new chatroom.v1.ChatService(addr, grpc.credentials.createInsecure(), options);
  run({ chat, service }, reader).then(() => {
    if (--running === 0) process.exit(0);
  });
}

async function run(clients, reader) {
  let position = "";
  do {
    const leg = await readCall(clients, reader, position);
    emit(leg);
    if (leg.reason !== "SLOW_CONSUMER" || !leg.position) return;
    // grpc-js gives a status that is not OK to its caller at once, and drops what it has received before and not yet
    // delivered. So what counts is the last message that was delivered; in this room its number is its offset.
    const [epoch, offset] = leg.position.split(":");
    const delivered = leg.ranges[leg.ranges.length - 1];
    position = `${epoch}:${delivered ? delivered[1] : offset}`;
    await new Promise((done) => setTimeout(done, leg.retry * 1000));
  } while (true);
}

function readCall(clients, reader, position) {
  const leg = {
    name: reader.name, code: "", message: "", reason: "", position: "", retry: 0, ranges: [], end: false, notes: [],
  };
  const call = open(clients, reader, position);
  return new Promise((done) => {
    let count = 0;
    let began = 0;
    const received = (text) => {
      const number = parseInt(text, 10);
      const last = leg.ranges[leg.ranges.length - 1];
      if (last && last[1] + 1 === number) last[1] = number;
      else leg.ranges.push([number, number]);
      count += 1;
      began = began || Date.now();
      leg.end = text.endsWith(" end");
      if (leg.end || (position && count === reader.further)) {
        done(leg);
        call.cancel();
      } else if (!position && reader.pace === "slow" && Date.now() - began < reader.seconds * 1000) {
        rest(call, SLOW_GAP_MS);
      } else if (!position && reader.pace === "pausing" && count === PAUSE_AFTER) {
        rest(call, reader.seconds * 1000);
      }
    };
    call.on("metadata", () => reader.api === "hello" && emit({ open: reader.name }));
    call.on("data", (response) => {
      if (reader.api === "hello") received(response.message);
      else if (response.event) received(response.event.body.text);
      else if (response.welcome) emit({ open: reader.name });
      else if (response.goodbye) {
        const at = response.goodbye.position;
        leg.notes.push(`goodbye ${response.goodbye.reason} ${at.epoch}:${at.offset}`);
      } else leg.notes.push(JSON.stringify(response));
    });
    call.on("error", (status) => {
      Object.assign(leg, { code: grpc.status[status.code], message: status.details }, statusDetails(status.metadata));
      done(leg);
    });
    call.on("status", ({ code }) => code === grpc.status.OK && done(Object.assign(leg, { code: "OK" })));
  });
}

function rest(call, milliseconds) {
  call.pause();
  setTimeout(() => call.resume(), milliseconds);
}

function open({ chat, service }, reader, position) {
  if (reader.api === "hello") {
    const metadata = new grpc.Metadata();
    metadata.set("chatroom-room", reader.room);
    metadata.set("chatroom-name", reader.name);
    if (position) metadata.set("chatroom-resume", position);
    return chat.Chat(metadata);
  }
  const joins = { room: reader.room, display_name: reader.name };
  if (position) {
    const [epoch, offset] = position.split(":");
    joins.start = { after: { epoch, offset } };
  }
  if (reader.api === "subscribe") return service.Subscribe(joins);
  const call = service.Join();
  call.write({ hello: joins });
  return call;
}

function emit(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}
