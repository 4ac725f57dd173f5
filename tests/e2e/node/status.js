// The details of a gRPC status, as grpc-js hands them out: bytes in the trailers.
"use strict";

const path = require("path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const packages = grpc.loadPackageDefinition(protoLoader.loadSync(path.join(__dirname, "status.proto"), {
  longs: Number, defaults: true, keepCase: true,
}));
const types = packages.google.rpc;

// Returns { reason, position, retry } in seconds; what is not there is empty.
exports.statusDetails = (metadata) => {
  const found = { reason: "", position: "", retry: 0 };
  for (const bytes of metadata.get("grpc-status-details-bin")) {
    for (const any of types.Status.deserialize(bytes).details) {
      const name = any.type_url.split("/").pop();
      if (name === "google.rpc.ErrorInfo") {
        const info = types.ErrorInfo.deserialize(any.value);
        found.reason = info.reason;
        found.position = info.metadata.position || "";
      } else if (name === "google.rpc.RetryInfo") {
        const { seconds, nanos } = types.RetryInfo.deserialize(any.value).retry_delay;
        found.retry = seconds + nanos / 1e9;
      }
    }
  }
  return found;
};
